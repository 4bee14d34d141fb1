"""`finetune get`: a fine-tune in detail on one page."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from finetune_api.finetune import FineTune
from finetune_api.finetune_spec import Resources
from finetune_api.finetune_status import Attempt, ErrorInfo, EventEntry, Resolved
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_finetune
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.manifests.training_files import training_file_texts
from finetune_cli.options import cluster_flags, name_argument, output_flag
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.format import (
    STATE_COLORS,
    duration,
    gib_text,
    local_time,
    number,
    parse_time,
)
from finetune_cli.terminal.status_line import plain_line

EVENTS = 12  # the newest ones; the others are counted


@click.command()
@name_argument
@output_flag
@cluster_flags
def command(*, name: str, output: str | None, target: ClusterTarget) -> None:
    """Show a fine-tune in detail: state, progress, settings, errors, and events.

    -o yaml prints the object, which `create -f` accepts.
    """
    raw = connect(target).finetunes.get(name)
    if output:
        show_objects(raw, output)
        return
    show(Screen(), read_finetune(raw), datetime.now(UTC))


def show(screen: Screen, finetune: FineTune, now: datetime) -> None:
    status = finetune.status
    state = status.state or "pending"
    screen.say(finetune.metadata.name, "bold")
    line = f"{state}  {status.error.code}" if status.error else plain_line(status, now)
    screen.say(f"  {line}", STATE_COLORS.get(state))
    if status.error is None and status.message and status.message not in line:
        screen.say(f"  {status.message}")
    _error(screen, finetune)
    screen.pairs([*_data(finetune), *_results(finetune), *_times(finetune, now)], indent=2)
    _section(screen, "Settings", _settings(finetune))
    if len(status.attempts) > 1:
        screen.say("Attempts", "bold")
        screen.pairs([_attempt(attempt) for attempt in status.attempts], indent=2)
    if status.events:
        hidden = max(0, len(status.events) - EVENTS)
        screen.say(f"Events (-o yaml shows {hidden} earlier ones)" if hidden else "Events", "bold")
        for event in status.events[-EVENTS:]:
            screen.hanging(f"  [{local_time(event.at)}] ", _event(event, status.error))


def _event(event: EventEntry, error: ErrorInfo | None) -> str:
    """The message of an event, without an error that is shown above."""
    if error is not None and error.message in event.message:
        return event.message.replace(error.message, "See above.")
    return event.message


def _data(finetune: FineTune) -> list[tuple[str, str]]:
    spec, resolved = finetune.spec, finetune.status.resolved
    held_out = resolved.validation_examples if resolved else None
    texts = training_file_texts(spec, resolved)
    are_several = len(texts) > 1
    in_epoch = resolved.training_examples if resolved and are_several else None
    return [
        ("model", spec.model),
        *(
            (f"trainingFiles[{n}]" if are_several else "training file", text)
            for n, text in enumerate(texts)
        ),
        ("examples per epoch", f"{in_epoch:,}" if in_epoch else ""),
        (
            "validation file",
            (spec.validation_file or "") + (f" ({held_out:,} examples)" if held_out else ""),
        ),
        ("requested", _requested(finetune)),
    ]


def _requested(finetune: FineTune) -> str:
    fields = [
        ("cancel", finetune.spec.cancel),
        ("suspend", finetune.spec.suspend),
        ("dry run", finetune.spec.dry_run),
    ]
    return ", ".join(name for name, is_set in fields if is_set)


def _results(finetune: FineTune) -> list[tuple[str, str]]:
    status = finetune.status
    return [
        ("fine-tuned model", status.fine_tuned_model or ""),
        ("model files", status.model_uri or ""),
        (
            "trained by",
            f"a former FineTune (UID {status.adopted_from.uid})" if status.adopted_from else "",
        ),
        ("results", ", ".join(status.result_files or [])),
    ]


def _times(finetune: FineTune, now: datetime) -> list[tuple[str, str]]:
    status = finetune.status
    begin, end = parse_time(status.started_at), parse_time(status.finished_at)
    lasted = f" ({duration(((end or now) - begin).total_seconds())})" if begin else ""
    gpu = status.gpu_seconds
    return [
        ("created", local_time(finetune.metadata.creation_timestamp)),
        ("started", f"{local_time(status.started_at)}{lasted}" if status.started_at else ""),
        ("finished", local_time(status.finished_at) if status.finished_at else ""),
        ("trained tokens", f"{status.trained_tokens:,}" if status.trained_tokens else ""),
        ("GPU time", duration(gpu) if gpu else ""),
    ]


def _settings(finetune: FineTune) -> list[tuple[str, str]]:
    resolved = finetune.status.resolved
    used = resolved.hyperparameters if resolved else None
    if resolved is None or used is None:
        return []
    multiplier = used.learning_rate_multiplier
    times = f" ({number(multiplier)} × the base model's)" if multiplier else ""
    spec = finetune.spec
    return [
        ("base model", resolved.base.uri),
        ("base revision", resolved.base.revision or ""),
        ("method", spec.method.type),
        ("epochs", f"{used.n_epochs} ({resolved.steps:,} steps)" if resolved.steps else ""),
        ("batch size", _count(used.batch_size, "example")),
        ("learning rate", f"{number(used.learning_rate)}{times}, {used.lr_schedule}"),
        ("prompt loss weight", number(used.prompt_loss_weight)),
        ("max sequence length", f"{used.max_sequence_length:,} tokens"),
        ("hardware", _hardware(spec.resources, resolved)),
        ("memory", _memory(spec.resources, resolved)),
    ]


def _hardware(requested: Resources, resolved: Resolved) -> str:
    """`2 nodes × 8 GPUs, h100, ZeRO 3`; `1 node, CPU`."""
    nodes, stage = _count(requested.nodes, "node"), resolved.zero_stage
    if requested.gpus_per_node:
        parts = [f"{nodes} × {_count(requested.gpus_per_node, 'GPU')}", resolved.runtime.name]
    else:
        parts = [nodes, "CPU"]
    # ZeRO 0 on a CPU is the default and not worth a mention
    if stage or (stage is not None and requested.gpus_per_node):
        parts.append(f"ZeRO {stage}")
    if resolved.offload not in {None, "none"}:
        parts.append(f"offload {resolved.offload}")
    return ", ".join(parts)


def _memory(requested: Resources, resolved: Resolved) -> str:
    """The estimates: `about 60.8 GiB per GPU, 130.2 GiB of host memory per pod`."""
    rank = "GPU" if requested.gpus_per_node else "process"
    gib, pod = resolved.memory_per_rank_gib, resolved.memory_per_pod_gib
    parts = [f"{gib_text(gib)} per {rank}"] if gib else []
    parts += [f"{gib_text(pod)} of host memory per pod"] if pod else []
    return f"about {', '.join(parts)}" if parts else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _section(screen: Screen, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        screen.say(title, "bold")
        screen.pairs(rows, indent=2)


def _error(screen: Screen, finetune: FineTune) -> None:
    error = finetune.status.error
    if error is None:
        return
    screen.hanging("  ", error.message)
    screen.pairs(
        [
            ("field", f"spec.{error.param.removeprefix('spec.')}" if error.param else ""),
            ("rank", "" if error.rank is None else str(error.rank)),
            ("exit code", "" if error.exit_code is None else str(error.exit_code)),
            ("hint", error.hint or ""),
        ],
        indent=2,
    )
    for line in [*(error.lines or []), *(error.log or [])]:
        screen.hanging("  | ", line, "")


def _attempt(attempt: Attempt) -> tuple[str, str]:
    """`1` and `from step 120, RankCrashed: exit code 1, rank 3`."""
    resumed = f"from step {attempt.resumed_from_step}, " if attempt.resumed_from_step else ""
    ended = ": ".join(filter(None, (attempt.reason, attempt.message))) or "running"
    rank = f", rank {attempt.rank}" if attempt.rank is not None else ""
    counted = ", does not count toward maxRestarts" if attempt.counted is False else ""
    return str(attempt.number), f"{resumed}{ended}{rank}{counted}"
