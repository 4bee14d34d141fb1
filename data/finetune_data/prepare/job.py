"""The prepare Job: from a PrepareTask to an Outcome, and a tokenized dataset in S3.

It checks the addresses, the existence of the data files, the base model's tokenizer, the dataset of
an earlier attempt, and then every line of the data: in this order, so that cheap checks fail first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.errors import FailureError
from finetune_api.layout import dataset_uri
from finetune_api.outcome import Failure, Outcome, Prepared
from finetune_api.tasks import PrepareTask
from finetune_api.training_files import TrainingFileCounts
from finetune_api.uris import S3Uri
from finetune_data import failures
from finetune_data.errors import DataError
from finetune_data.lint.facts import DataSummary
from finetune_data.lookup.reuse import find_same
from finetune_data.memory.adapter import adapts_experts
from finetune_data.memory.plan import in_gib
from finetune_data.memory.shape import ModelShape
from finetune_data.models.base_models import (
    CONFIG,
    fetch_base_model,
    model_positions,
    read_json,
    stored_weight_bytes,
    text_settings,
)
from finetune_data.models.pinning import pin_base_model
from finetune_data.pod_log import ProgressLog, log
from finetune_data.prepare.checks import (
    check_classes,
    data_advice,
    find_refusal,
    mixed_kinds_advice,
    skipped_lines_advice,
    template_advice,
)
from finetune_data.prepare.epoch_files import (
    merged_ends,
    repeat_advice,
    training_parts,
    write_splits,
)
from finetune_data.prepare.hyperparameters import (
    Context,
    resolve_context,
    resolve_hyperparameters,
    run_advice,
)
from finetune_data.prepare.inputs import DataFile, data_files, training_weights
from finetune_data.prepare.memory_fit import find_fallbacks, fit_memory, memory_advice
from finetune_data.prepare.tokenize_file import (
    Observations,
    PreparedSplit,
    SplitRules,
    prepare_split,
)
from finetune_data.read.findings import FileFindings, FindingsFile, counted, shown
from finetune_data.read.reader import Reader, ReadOptions
from finetune_data.read.sources import S3Source
from finetune_data.tokenize.dataset import (
    TRAIN,
    VALIDATION,
    DatasetManifest,
    DatasetSource,
    read_manifest,
    without_known_digests,
    write_dataset,
)
from finetune_data.tokenize.loading import load_tokenizer
from finetune_data.tokenize.tokenizer import ExampleTokenizer
from finetune_storage.errors import StorageError
from finetune_storage.manifests import file_entry
from finetune_storage.messages import StorageProblem, process_audience
from finetune_storage.s3 import Storage

STARTS = 3  # of a job whose files are replaced while it reads them


def prepare(task: PrepareTask, storage: Storage, folder: Path) -> Outcome:
    """Do the whole task, with `folder` for temporary files. Expected errors become a failure."""
    for start in range(1, STARTS + 1):
        scratch = folder / f"start-{start}"
        scratch.mkdir()
        try:
            return _prepare(task, storage, scratch)
        except FailureError as error:
            is_changed = isinstance(error, StorageError) and error.problem is StorageProblem.CHANGED
            if not is_changed or start == STARTS:
                return Outcome(failure=error.failure_for(process_audience()))
            log(f"{error} The job starts again.")
            shutil.rmtree(scratch)
    raise AssertionError("the last start returns")


def _prepare(task: PrepareTask, storage: Storage, folder: Path) -> Outcome:
    files = data_files(task)
    present = {}
    for file in files:
        with _naming(file.param):
            present[file.name] = S3Source(file.uri, storage, folder / "inputs")
            present[file.name].identify()
    log(f"downloading the tokenizer of {task.base.name} from {task.base.uri}")
    task = task.replace(base=pin_base_model(task.base, folder / "model", storage))
    model = fetch_base_model(task.base, folder / "model", storage, weights=False)
    tokenizer = load_tokenizer(model, task.base.name)
    context = resolve_context(
        task.hyperparameters.max_sequence_length, task.base, model_positions(model)
    )
    shape = ModelShape.of(
        text_settings(read_json(model / CONFIG)), stored_weight_bytes(task.base, storage)
    )
    if shape is not None and task.method.dropout and adapts_experts(shape, task.method):
        raise DataError(failures.no_dropout_of_experts())
    source = DatasetSource(
        tokenizer_sha256=tokenizer.digest,
        context_length=context.length,
        data_tolerance=task.data_tolerance,
        classification=task.classification,
        inputs={name: known.identity for name, known in present.items()},
        weights=training_weights(task),
    )
    uri = dataset_uri(task.run.output, task.run.namespace, source.key(task.run.uid))
    with _naming("output"):
        manifest = read_manifest(uri, storage)
    if manifest is not None and _was_made_from(manifest, source):
        log(f"reusing the dataset at {uri}, which was made from these files")
    else:
        # those of killed pods; pods of other FineTunes may be uploading the same dataset
        storage.abort_uploads(S3Uri.parse(task.run.output).child(task.run.namespace))
        manifest = _build(task, storage, folder, tokenizer, source, files, present, uri)
    prepared = _prepared(task, manifest, context, shape, uri)
    found = find_same(task, manifest, prepared, storage)
    for sentence in found.advice:
        log(f"advice: {sentence}")
    advice = [*(prepared.advice or []), *found.advice]
    return Outcome(prepared=prepared.replace(advice=advice or None), adopted=found.adopted)


def _build(  # noqa: PLR0917 - the results of the steps before it, in their order
    task: PrepareTask,
    storage: Storage,
    folder: Path,
    tokenizer: ExampleTokenizer,
    source: DatasetSource,
    files: list[DataFile],
    present: dict[str, S3Source],
    uri: S3Uri,
) -> DatasetManifest:
    """Read every line, and write the dataset unless a file is refused."""
    arrays, scratch = folder / "dataset", folder / "files"
    arrays.mkdir()
    scratch.mkdir()
    rules = SplitRules(task.base.name, source.context_length)
    observations = {TRAIN: Observations(), VALIDATION: Observations()}
    parts: dict[str, PreparedSplit] = {}
    extra: list[str] = []
    with FindingsFile(folder / "data-report.jsonl") as report:
        for file in files:
            known = present[file.name]
            findings = FileFindings(file.param, known.name, report)
            log(f"checking and tokenizing {file.param} {known.name}: {known.size:,} bytes")
            reader = Reader(known, ReadOptions(limits=task.limits))
            with _naming(file.param):
                parts[file.name] = prepare_split(
                    file.name,
                    reader,
                    arrays if file.name == file.split else scratch,
                    tokenizer=tokenizer,
                    rules=rules,
                    findings=findings,
                    observations=observations[file.split],
                )
            ignored = reader.description.ignored
            if ignored:
                names = ", ".join(shown(name) for name in ignored[:5])
                extra.append(f"Ignored columns of {file.param}: {names}.")
    _upload_report(report, task, storage)
    failure = _find_failure(parts, task)
    if failure is not None:
        raise DataError(failure)
    written = write_splits(files, parts, source.weights, scratch, arrays)
    training = training_parts(parts)[-1]
    manifest = DatasetManifest(
        source=source.replace(inputs={name: part.source for name, part in parts.items()}),
        splits=written.splits,
        advice=[*_advice(parts, task), *extra],
        data_kind=training.summary.kind,
        classes=training.summary.classes,
        separator=training.separator or None,
        ends=merged_ends(training_parts(parts)),
        training_files=written.shares,
        files=[file_entry(arrays, path) for path in written.paths],
    )
    log(f"writing the dataset to {uri}")
    with _naming("output"):
        write_dataset(arrays, uri, storage, manifest, ProgressLog("writing the dataset"))
    return manifest


def _prepared(
    task: PrepareTask,
    manifest: DatasetManifest,
    context: Context,
    shape: ModelShape | None,
    uri: S3Uri,
) -> Prepared:
    """The outcome, from nothing but a dataset's manifest, so that a retry reports the same."""
    train = manifest.splits[TRAIN]
    validation = manifest.splits.get(VALIDATION)
    shares = manifest.training_files or []
    resolution = resolve_hyperparameters(
        task.hyperparameters,
        task.rules,
        task.base,
        examples=train.examples,
        context=context.length,
        method=task.method.type,
    )
    plan = fit_memory(shape, task, train.longest_example)
    if plan is not None:
        plan = plan.with_dataset(sum(entry.size for entry in manifest.files))
    advice = [
        *memory_advice(plan, task.workers),
        *manifest.advice,
        *context.advice,
        *resolution.advice,
        *repeat_advice(shares, resolution.hyperparameters.n_epochs),
        *run_advice(train, resolution.hyperparameters, task.workers),
    ]
    for sentence in advice:
        log(f"advice: {sentence}")
    return Prepared(
        training_examples=train.examples,
        validation_examples=validation.examples if validation else 0,
        training_files=[
            TrainingFileCounts(examples=share.examples, epoch_examples=share.epoch_examples)
            for share in shares
        ]
        or None,
        training_tokens=train.tokens,
        skipped_lines=sum(split.skipped_lines for split in manifest.splits.values()),
        steps=resolution.hyperparameters.steps(train.examples),
        hyperparameters=resolution.hyperparameters,
        dataset=str(uri),
        base_revision=task.base.revision,
        zero_stage=plan.zero_stage if plan else None,
        offload=plan.offload if plan else None,
        memory_per_rank_gib=plan.gib if plan else None,
        memory_per_pod_gib=in_gib(plan.node.memory) if plan else None,
        storage_per_pod_gib=in_gib(plan.node.disk) if plan else None,
        checkpoint_per_pod_gib=in_gib(plan.node.checkpoint) if plan else None,
        fallbacks=find_fallbacks(shape, task, train.longest_example, plan) or None,
        advice=advice or None,
    )


def _find_failure(parts: dict[str, PreparedSplit], task: PrepareTask) -> Failure | None:
    """The failure of the first refused file, with the findings of the others after its own."""
    found = [find_refusal(part.checked, task.data_tolerance) for part in parts.values()]
    refused = [failure for failure in found if failure is not None]
    if not refused:
        training, validation = _summaries(parts)
        declared = task.classification
        return check_classes(declared, training, validation) if declared else None
    first, *others = refused
    lines = [
        *(first.lines or []),
        *(f"{other.param}, {line}" for other in others for line in other.lines or []),
    ]
    return first.replace(
        lines=lines[:20] or None, hint=f"all findings are in {task.run.layout.data_report}"
    )


def _advice(parts: dict[str, PreparedSplit], task: PrepareTask) -> list[str]:
    """The advice, the most important first: a full termination message drops the last."""
    training, validation = _summaries(parts)
    files = training_parts(parts)
    advice = mixed_kinds_advice({file.checked.findings.param: file.has_chats for file in files})
    for part in parts.values():
        advice += skipped_lines_advice(part.checked, task.data_tolerance)
    for file in files:
        if file.has_chats:
            advice += template_advice(file.checked, file.counts.examples, file.ends)
    declares_classes = task.classification is not None
    advice += data_advice(training, validation, declares_classes=declares_classes)
    return [*dict.fromkeys(advice)]


def _summaries(parts: dict[str, PreparedSplit]) -> tuple[DataSummary, DataSummary | None]:
    """The summaries of all training files and of the validation file."""
    validation = parts.get(VALIDATION)
    return training_parts(parts)[-1].summary, validation.summary if validation else None


def _was_made_from(manifest: DatasetManifest, source: DatasetSource) -> bool:
    """Whether the dataset was made from these files, as they are now, with these settings."""
    inputs = without_known_digests(manifest.source.inputs)
    return manifest.source.replace(inputs=inputs) == source.replace(
        inputs=without_known_digests(source.inputs)
    )


def _upload_report(report: FindingsFile, task: PrepareTask, storage: Storage) -> None:
    """Upload the report. A failure to do so must not hide the findings."""
    if not report.written:
        return
    try:
        storage.upload_file(report.path, task.run.layout.data_report)
    except StorageError as error:
        log(f"the report of all findings cannot be written: {error}")
    else:
        log(f"{counted(report.written, 'finding')} in {task.run.layout.data_report}")


@contextmanager
def _naming(param: str) -> Iterator[None]:
    """Add the spec field to a storage error."""
    try:
        yield
    except StorageError as error:
        raise error.about(param) from error
