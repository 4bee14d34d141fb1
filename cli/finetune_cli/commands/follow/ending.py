"""The last lines of `finetune follow`: the result or the failure, and the next step. Pure."""

from __future__ import annotations

import shlex

from finetune_api.finetune import FineTune
from finetune_api.names import Reason, State
from finetune_cli.terminal.format import gib_text


def ending_lines(finetune: FineTune, program: str, flags: str) -> list[tuple[str, str]]:
    """(line, color) for a finished FineTune: the result or the failure, and the next step.

    program: the command as the user called it. flags: the cluster flags to repeat.
    """
    status, name = finetune.status, finetune.metadata.name
    if status.state == State.SUCCEEDED and status.reason == Reason.DRY_RUN:
        return [("Data checked, nothing trained. Status: succeeded", "green"), *_plan(finetune)]
    if status.state == State.SUCCEEDED:
        lines = [("Job complete! Status: succeeded", "bold green")]
        if status.fine_tuned_model:
            lines.append((f"Model: {status.fine_tuned_model}", ""))
        if status.model_uri:
            lines.append((f"Files: {status.model_uri}", ""))
        lines.append((f"Plot:     {program} results {name}{flags} --plot", "dim"))
        if status.fine_tuned_model:
            model = shlex.quote(status.fine_tuned_model)
            pull = f"{program} models pull {model}{flags}"
            lines.append((f"Download: {pull}", "dim"))
            answer = f"{program} complete {name}{flags} -p PROMPT"
            lines.append((f"Generate: {answer}", "dim"))
        return lines
    if status.state == State.CANCELLED:
        return [
            ("Job cancelled. Its checkpoint and partial results are kept.", "magenta"),
            (f"Details: {program} get {name}{flags}", "dim"),
        ]
    return failure_lines(finetune, program, flags)


def failure_lines(finetune: FineTune, program: str, flags: str) -> list[tuple[str, str]]:
    """The cause of the failure, and the data or log lines that show it."""
    status = finetune.status
    error = status.error
    cause = (error.message if error else status.message) or "the status does not contain a cause"
    lines = [(f"Job failed. {cause}", "bold red")]
    if error and error.param:
        lines.append((f"Field: spec.{error.param.removeprefix('spec.')}", ""))
    if error:
        lines += [(f"  {line}", "") for line in error.lines or error.log or []]
    if error and error.hint:
        lines.append((f"hint: {error.hint}", "yellow"))
    lines.append((f"Details: {program} get {finetune.metadata.name}{flags}", "dim"))
    return lines


def _plan(finetune: FineTune) -> list[tuple[str, str]]:
    """The size of the training that a dry run planned."""
    plan = finetune.status.resolved
    if plan is None:
        return []
    figures = [
        ("examples", plan.training_examples),
        ("validation examples", plan.validation_examples),
        ("tokens per epoch", plan.training_tokens),
        ("steps", plan.steps),
    ]
    lines = [(f"  {value:,} {name}", "") for name, value in figures if value]
    rank = "GPU" if finetune.spec.resources.gpus_per_node else "process"
    needs = [
        (f"memory per {rank}", plan.memory_per_rank_gib),
        ("host memory per pod", plan.memory_per_pod_gib),
        ("files per pod", plan.storage_per_pod_gib),
    ]
    return lines + [(f"  about {gib_text(gib)} of {name}", "") for name, gib in needs if gib]


def interrupt_lines(name: str, program: str, flags: str) -> list[str]:
    """The lines after Ctrl-C."""
    return [
        f"Stopped following. The fine-tune {name} continues.",
        f"To follow it again: {program} follow {name}{flags}",
        f"To cancel it:       {program} cancel {name}{flags}",
    ]
