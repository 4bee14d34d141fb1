"""`finetune run -f finetune.yaml`: prepare and train here, what the pods would have done."""

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
from finetune_api.outcome import Failure, Prepared, Trained
from finetune_api.tasks import RuntimeRef
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_cli.commands.create.command import FILE_FIELDS, with_full_paths, with_placeholder_uris
from finetune_cli.commands.run.base import find_base, with_own_models
from finetune_cli.commands.run.gang import free_port, train
from finetune_cli.machine import Machine, find_machine, require_trainer
from finetune_cli.manifests import manifest, uploads
from finetune_cli.manifests.checking import check
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_INTERRUPTED, EXIT_NOT_SUCCEEDED, program_name

NAMESPACE = "local"
FILES = "files"  # the folder below the output that holds the data, by content


@click.command()
@click.option("-f", "--file", "source", required=True, metavar="FILE", help="The FineTune's YAML.")
@click.option(
    "-o",
    "--output-folder",
    default="finetune-output",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where models, results and checkpoints go.",
)
@click.option(
    "--models",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML with further base models: name, uri (also a folder), pretrainingLearningRate, "
    "contextLength.",
)
@click.option("--cpu", is_flag=True, help="Leave the GPUs alone.")
def command(source: str, output_folder: Path, models: Path | None, cpu: bool) -> None:
    """Train a FineTune on this machine, with no cluster.

    The same manifest, the same numbers, the same results.csv and model. Data files may be on this
    machine or in S3. Where a run was stopped, the same command goes on from its last checkpoint.
    """
    screen = Screen()
    written = manifest.read(source)
    written = with_full_paths(written, Path(source).parent if source != "-" else Path())
    check(with_placeholder_uris(written["spec"]))
    require_trainer()
    root = output_folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    os.environ[ENV_LOCAL_ROOT] = str(root)
    machine = find_machine(cpu=cpu)
    finetune = _on_this_machine(written, machine, screen)
    resolved = _resolve(finetune, machine, models, root)
    prepared = _prepare(finetune, resolved, screen)
    resolved = with_prepared(resolved, prepared)
    if finetune.spec.dry_run:
        screen.note("Nothing was trained: spec.dryRun is set.")
        return
    layout = RunLayout.of(resolved.output, NAMESPACE, finetune.metadata.name, finetune.metadata.uid)
    was_trained = _is_there(layout.model.child(MANIFEST))
    task = train_task(
        *(finetune, resolved, _next_attempt(root / layout.root.key)),
        micro_batch_share=1,
        master_host="127.0.0.1",
        master_port=free_port(),
        progress_port=free_port(),
    )
    if was_trained:
        screen.note(
            f"This manifest was trained already; its model is at {_readable(layout.model, root)}. "
            "Another --output-folder trains it again."
        )
    else:
        screen.note(f"progress: http://127.0.0.1:{task.progress_port}/progress")
    outcome = train(task, root)
    if outcome is None:
        raise CommandError("the training ended and did not say why", "see the lines above")
    if outcome.failure is not None:
        raise _ended(outcome.failure, resolved)
    assert outcome.trained is not None
    _show(outcome.trained, layout, root, screen)


def _on_this_machine(written: JsonObject, machine: Machine, screen: Screen) -> FineTune:
    """The manifest with its data in the local bucket and this machine's resources."""
    from finetune_storage.connect import open_storage

    storage = open_storage()
    named = manifest.named(written, None)
    name = named["metadata"].get("name") or named["metadata"]["generateName"].rstrip("-")
    addresses = []
    for field in FILE_FIELDS:
        if uploads.is_local(written["spec"].get(field)):
            path = uploads.find_file(written["spec"][field], Path())
            with screen.transfer(f"reading {path.name}") as progress:
                found = uploads.plan(path, f"s3://{LOCAL_BUCKET}/{FILES}", storage, progress)
                uploads.send(found, storage, progress)
            addresses.append((field, str(found.uri)))
    asked = written["spec"].get("resources") or {}
    nodes, gpus = asked.get("nodes", 1), asked.get("gpusPerNode", 1)
    # as many as in a cluster add up in the same order, so the numbers are the same
    processes = nodes if gpus == machine.gpus == 0 and nodes <= machine.cpus else 1
    is_asked = not asked.keys().isdisjoint({"nodes", "gpusPerNode"})  # defaults are nobody's words
    if is_asked and (nodes, gpus) != (processes, machine.gpus):
        have = f"{machine.gpus} GPUs" if machine.gpus else "the CPU"
        screen.note(f"spec.resources is for a cluster: this machine trains on {have}")
    here = {**asked, "nodes": processes, "gpusPerNode": machine.gpus}
    changed = manifest.with_values(named, [*addresses, ("resources", here)])
    # what would be immutable in a cluster: another spec is another run
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
    from finetune_data.prepare.job import prepare
    from finetune_storage.connect import open_storage

    task = prepare_task(finetune, resolved, HyperparameterRules(), DataLimits())
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        outcome = prepare(task, open_storage(), Path(folder))
    if outcome.failure is not None:
        raise _ended(outcome.failure, resolved)
    found = outcome.prepared
    assert found is not None
    rate, batch = found.hyperparameters.learning_rate, found.hyperparameters.batch_size
    screen.note(
        f"{found.training_examples:,} examples, {found.training_tokens:,} tokens an epoch, "
        f"{found.steps:,} steps of {batch}, learning rate {rate:.3g}"
    )
    return found


def _next_attempt(folder: Path) -> int:
    """Counted in a file beside the run's own, so that an older attempt is known as such."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "attempts"
    number = (int(path.read_text()) if path.exists() else 0) + 1
    path.write_text(f"{number}\n")
    return number


def _is_there(uri: S3Uri) -> bool:
    from finetune_storage.connect import open_storage

    return open_storage().exists(uri)


def _ended(failure: Failure, resolved: Resolved) -> CommandError:
    failure = with_own_models(failure, resolved.base.uri)
    if failure.exit_code == EXIT_PREEMPTED:
        return CommandError(
            failure.message,
            f"the same `{program_name()} run` goes on from it",
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
            f"The training loss ended above the {trained.first_loss:.4f} of the first step: train "
            "again with a tenth of the learning rate",
            "yellow",
        )
    model = shlex.quote(_readable(layout.model, root))
    screen.say(f"Let it answer: {program_name()} complete {model} -p PROMPT", "dim")


def _readable(uri: S3Uri, root: Path) -> str:
    """A path of this machine where it is one."""
    return os.path.relpath(root / uri.key) if uri.bucket == LOCAL_BUCKET else str(uri)
