"""`finetune run`: prepare and train on this machine, with the code of the pods."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import tempfile
from pathlib import Path

import click

from finetune_api.assignments import prepare_task, train_task, with_prepared
from finetune_api.finetune import FineTune
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.finetune_status import Resolved
from finetune_api.hyperparameters import HyperparameterRules
from finetune_api.layout import MANIFEST, RunLayout
from finetune_api.limits import DataLimits
from finetune_api.names import (
    ENV_LOCAL_ROOT,
    EXIT_PREEMPTED,
    EXIT_USER,
    LOCAL_BUCKET,
    USER_REASONS,
)
from finetune_api.outcome import Failure, Outcome, Prepared, Trained
from finetune_api.tasks import RuntimeRef
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_cli.commands.run.base_model import (
    find_base,
    with_former_revision,
    with_own_models,
)
from finetune_cli.commands.run.local_pods import check_base_model, free_port, train
from finetune_cli.machine import Machine, find_machine, require_trainer
from finetune_cli.manifests import manifest, uploads
from finetune_cli.manifests.checking import check
from finetune_cli.manifests.local_files import (
    local_files,
    spec_with_placeholders,
    with_addresses,
    with_full_paths,
)
from finetune_cli.manifests.training_files import training_file_texts
from finetune_cli.options import models_flag, output_folder_flag
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import (
    EXIT_INTERRUPTED,
    EXIT_NOT_SUCCEEDED,
    EXIT_USAGE,
    program_name,
)

NAMESPACE = "local"
FILES = "files"  # the folder in the output folder for data files, by content


@click.command()
@click.option(
    "-f", "--file", "source", required=True, metavar="FILE", help="FineTune manifest in YAML."
)
@output_folder_flag("Folder for models, results, and checkpoints.")
@models_flag
@click.option("--cpu", is_flag=True, help="Train on the CPU even if there are GPUs.")
def command(source: str, output_folder: Path, models: Path | None, cpu: bool) -> None:
    """Train a FineTune on this machine, without a cluster.

    The manifest, the metrics, results.csv, and the model are the same as in a cluster. Data files
    can be local or in S3. To continue an interrupted run from its last checkpoint, run the same
    command again.
    """
    screen = Screen()
    written = manifest.read(source)
    written = with_full_paths(written, Path(source).parent if source != "-" else Path())
    spec = spec_with_placeholders(written)
    check(spec)
    _check_rules(spec)
    require_trainer()
    root = output_folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    os.environ[ENV_LOCAL_ROOT] = str(root)
    machine = find_machine(cpu=cpu)
    finetune = _on_this_machine(written, machine, screen)
    resolved = _resolve(finetune, machine, models, root)
    layout = RunLayout.of(resolved.output, NAMESPACE, finetune.metadata.name, finetune.metadata.uid)
    was_trained = _exists(layout.model.child(MANIFEST))
    if not was_trained:
        resolved = resolved.replace(base=with_former_revision(resolved.base, layout))
    prepared = _prepare(finetune, resolved, screen)
    resolved = with_prepared(resolved, prepared)
    if not was_trained:
        _check_base(finetune, resolved, root)
    if finetune.spec.dry_run:
        screen.note("Data checked. Nothing was trained because spec.dryRun is set.")
        return
    task = train_task(
        *(finetune, resolved, _next_attempt(root / layout.root.key)),
        micro_batch_share=1,
        master_host="127.0.0.1",
        master_port=free_port(),
        progress_port=free_port(),
    )
    if was_trained:
        screen.note(
            f"This manifest was already trained; its model is in {_readable(layout.model, root)}. "
            "To train it again, choose another --output-folder."
        )
    else:
        screen.note(f"progress: http://127.0.0.1:{task.progress_port}/progress")
    outcome = train(task, root)
    if outcome is None:
        raise CommandError(
            "the training ended without reporting a cause", "see the log lines above"
        )
    if outcome.failure is not None:
        raise _failure_error(outcome.failure, resolved)
    assert outcome.trained is not None
    _show(outcome.trained, layout, root, screen)


def _check_rules(spec: JsonObject) -> None:
    """The rules across fields, which the API server of a cluster checks."""
    from finetune_local.rules import broken_rules

    if broken := "; ".join(broken_rules(FineTuneSpec.model_validate(spec))):
        raise CommandError(broken, "correct the manifest", code=EXIT_USAGE)


def _on_this_machine(written: JsonObject, machine: Machine, screen: Screen) -> FineTune:
    """The manifest with its data in the local bucket and the resources of this machine."""
    from finetune_storage.connect import open_storage

    storage = open_storage()
    named = manifest.named(written, None)
    name = named["metadata"].get("name") or named["metadata"]["generateName"].rstrip("-")
    planned = {}
    prefix = f"s3://{LOCAL_BUCKET}/{FILES}"
    for field, address in local_files(written).items():
        path = uploads.find_file(address, Path())
        with screen.transfer(f"hashing {path.name}") as progress:
            planned[field] = uploads.plan_upload(path, prefix, storage, progress)
            uploads.send_upload(planned[field], storage, progress)
    uploads.require_different_training_files(planned)
    addressed = with_addresses(named, {field: str(made.uri) for field, made in planned.items()})
    requested = written["spec"].get("resources") or {}
    nodes, gpus = requested.get("nodes", 1), requested.get("gpusPerNode", 1)
    # the same number of processes adds gradients in the same order, so the results are equal
    processes = nodes if gpus == machine.gpus == 0 and nodes <= machine.cpus else 1
    is_set = not requested.keys().isdisjoint({"nodes", "gpusPerNode"})  # not by default
    if is_set and (nodes, gpus) != (processes, machine.gpus):
        hardware = f"{machine.gpus} GPUs" if machine.gpus else "the CPU"
        screen.note(f"spec.resources applies to clusters; this machine trains on {hardware}.")
    resources = {**requested, "nodes": processes, "gpusPerNode": machine.gpus}
    changed = manifest.with_values(addressed, [("resources", resources)])
    # a spec is immutable in a cluster: another spec is another run
    identity = json.dumps([name, changed["spec"]], sort_keys=True)
    uid = hashlib.sha256(identity.encode()).hexdigest()
    metadata = {"name": name, "namespace": NAMESPACE, "uid": uid}
    return FineTune.parse({"metadata": metadata, "spec": changed["spec"]})


def _resolve(finetune: FineTune, machine: Machine, models: Path | None, root: Path) -> Resolved:
    spec = finetune.spec
    return Resolved(
        base=find_base(spec.model, models, root),
        runtime=RuntimeRef(
            name="local",
            trainer_image="",
            prepare_image="",
            accelerator="nvidia" if machine.gpus else "cpu",
            gpu_memory_gib=machine.memory_gib,
        ),
        organization=NAMESPACE,
        output=(spec.output or f"s3://{LOCAL_BUCKET}").rstrip("/"),
        secret_name="",
        zero_stage=spec.deepspeed.zero_stage if spec.deepspeed else None,
        offload=spec.deepspeed.offload if spec.deepspeed else None,
    )


def _prepare(finetune: FineTune, resolved: Resolved, screen: Screen) -> Prepared:
    from finetune_data.confined.child import LostError
    from finetune_data.confined.outcomes import confined_outcome
    from finetune_data.prepare.job import prepare
    from finetune_storage.connect import open_storage

    task = prepare_task(finetune, resolved, HyperparameterRules(), DataLimits())

    def work() -> Outcome:
        return prepare(task, open_storage(), Path(folder))

    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        try:
            outcome = confined_outcome(work)
        except LostError as error:
            message = f"the check of the data ended with exit code {error.exit_code}"
            hint = "137 is a process that was killed, for example for memory"
            raise CommandError(message, hint) from error
    if outcome.failure is not None:
        raise _failure_error(outcome.failure, resolved)
    found = outcome.prepared
    assert found is not None
    if found.training_files:
        for text in training_file_texts(finetune.spec, with_prepared(resolved, found)):
            screen.note(text)
    rate, batch = found.hyperparameters.learning_rate, found.hyperparameters.batch_size
    screen.note(
        f"{found.training_examples:,} examples, {found.training_tokens:,} tokens per epoch, "
        f"{found.steps:,} steps with batch size {batch}, learning rate {rate:.3g}"
    )
    return found


def _check_base(finetune: FineTune, resolved: Resolved, root: Path) -> None:
    """Check a base model in a process of its own, before it is downloaded or loaded."""
    task = prepare_task(finetune, resolved, HyperparameterRules(), DataLimits())
    outcome = check_base_model(task, root)
    if outcome is not None and outcome.failure is not None:
        raise _failure_error(outcome.failure, resolved)


def _next_attempt(folder: Path) -> int:
    """The number of this attempt, counted in a file, so that an older attempt is recognized."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "attempts"
    number = (int(path.read_text()) if path.exists() else 0) + 1
    path.write_text(f"{number}\n")
    return number


def _exists(uri: S3Uri) -> bool:
    from finetune_storage.connect import open_storage

    return open_storage().exists(uri)


def _failure_error(failure: Failure, resolved: Resolved) -> CommandError:
    failure = with_own_models(failure, resolved.base.uri)
    if failure.exit_code == EXIT_PREEMPTED:
        return CommandError(
            failure.message,
            f"run the same `{program_name()} run` command to continue from the checkpoint",
            code=EXIT_INTERRUPTED,
        )
    lines = "".join(f"\n  {line}" for line in failure.lines or failure.log or [])
    code = EXIT_USER if failure.code in USER_REASONS else EXIT_NOT_SUCCEEDED
    return CommandError(f"{failure.message}{lines}", failure.hint or "", code=code)


def _show(trained: Trained, layout: RunLayout, root: Path, screen: Screen) -> None:
    screen.say(f"Fine-tune succeeded: {trained.fine_tuned_model}", "bold green")
    loss = trained.training_loss
    screen.pairs(
        [
            ("model", _readable(layout.model, root)),
            ("results", _readable(layout.results, root)),
            ("report", _readable(layout.report, root)),
            ("steps", f"{trained.steps:,}"),
            ("tokens", f"{trained.trained_tokens:,}"),
            ("loss", "" if loss is None else f"{loss:.4f}"),
        ]
    )
    if trained.has_diverged:
        screen.say(
            f"Training diverged: loss ended above the {trained.first_loss:.4f} of the first step. "
            "Train again with a lower learning rate, for example one tenth.",
            "yellow",
        )
    model = shlex.quote(_readable(layout.model, root))
    screen.say(f"Generate: {program_name()} complete {model} -p PROMPT", "dim")


def _readable(uri: S3Uri, root: Path) -> str:
    """A local path for an address in the local bucket; otherwise the address."""
    return os.path.relpath(root / uri.key) if uri.bucket == LOCAL_BUCKET else str(uri)
