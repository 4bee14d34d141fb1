"""The prepare Job: from a PrepareTask to an Outcome, and a tokenized dataset in S3.

In this order, so that what is cheap fails first: addresses, the data files' existence, the base
model's tokenizer, a dataset of an earlier try, then every line of the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.errors import FailureError
from finetune_api.layout import dataset_uri
from finetune_api.names import Reason
from finetune_api.outcome import Failure, Outcome, Prepared
from finetune_api.tasks import PrepareTask
from finetune_api.uris import S3Uri
from finetune_data.console import Ticker, say
from finetune_data.errors import DataError
from finetune_data.models.base_models import (
    CONFIG,
    fetch_base_model,
    read_json,
    text_settings,
    weigh,
)
from finetune_data.models.memory_model import ModelShape
from finetune_data.prepare.checks import advise, check_classes, skipped_advice, verdict
from finetune_data.prepare.hyperparameters import Context, resolve, resolve_context, run_advice
from finetune_data.prepare.memory_fit import fit
from finetune_data.prepare.tokenize_file import PreparedSplit, SplitRules, prepare_split
from finetune_data.read.findings import FileFindings, Report, counted, shown
from finetune_data.read.reader import Reader, ReadOptions
from finetune_data.read.sources import S3Source
from finetune_data.tokenize.dataset import (
    TRAIN,
    VALIDATION,
    DatasetManifest,
    DatasetSource,
    read_manifest,
    write_dataset,
)
from finetune_data.tokenize.tokenizer import ExampleTokenizer, load_tokenizer, model_positions
from finetune_storage.audience import process_audience
from finetune_storage.errors import StorageError
from finetune_storage.manifests import file_entry
from finetune_storage.s3 import Storage

PARAMS = {TRAIN: "trainingFile", VALIDATION: "validationFile"}


def prepare(task: PrepareTask, storage: Storage, folder: Path) -> Outcome:
    """Do the whole task, with `folder` for files on the way. Every foreseen error is a failure."""
    try:
        return Outcome(prepared=_prepare(task, storage, folder))
    except FailureError as error:
        return Outcome(failure=error.failure_for(process_audience()))


def _prepare(task: PrepareTask, storage: Storage, folder: Path) -> Prepared:
    addresses = _addresses(task)
    present = {}
    for split, uri in addresses.items():
        with _about(PARAMS[split]):
            present[split] = S3Source(uri, storage, folder / "inputs")
    say(f"fetching the tokenizer of {task.base.name} from {task.base.uri}")
    model = fetch_base_model(task.base, folder / "model", storage, weights=False)
    tokenizer = load_tokenizer(model, task.base.name)
    context = resolve_context(
        task.hyperparameters.max_sequence_length, task.base, model_positions(model)
    )
    shape = ModelShape.of(text_settings(read_json(model / CONFIG)), weigh(task.base, storage))
    source = DatasetSource(
        tokenizer_sha256=tokenizer.digest,
        context_length=context.length,
        data_tolerance=task.data_tolerance,
        classification=task.classification,
        inputs={name: known.identity for name, known in present.items()},
    )
    uri = dataset_uri(task.run.output, task.run.namespace, source.key(task.run.uid))
    with _about("output"):
        manifest = read_manifest(uri, storage)
    if manifest is not None and _is_of(manifest, source):
        say(f"the dataset at {uri} is of these files and is used")
    else:
        manifest = _build(task, storage, folder, tokenizer, source, present, uri)
    return _prepared(task, manifest, context, shape, uri)


def _build(  # noqa: PLR0917 - what was found out before, in its order
    task: PrepareTask,
    storage: Storage,
    folder: Path,
    tokenizer: ExampleTokenizer,
    source: DatasetSource,
    present: dict[str, S3Source],
    uri: S3Uri,
) -> DatasetManifest:
    """Read every line, and write the dataset unless one of the files is refused."""
    files = folder / "dataset"
    files.mkdir()
    rules = SplitRules(task.base.name, source.context_length, task.limits)
    splits: dict[str, PreparedSplit] = {}
    extra: dict[str, str] = {}
    with Report(folder / "data-report.jsonl") as report:
        for split, known in present.items():
            findings = FileFindings(PARAMS[split], known.name, report)
            say(f"checking and tokenizing {PARAMS[split]} {known.name}: {known.size:,} bytes")
            reader = Reader(known, ReadOptions(limits=task.limits))
            with _about(PARAMS[split]):
                splits[split] = prepare_split(
                    split, reader, files, tokenizer=tokenizer, rules=rules, findings=findings
                )
            ignored = reader.description.ignored
            if ignored:
                names = ", ".join(shown(name) for name in ignored[:5])
                extra[split] = f"Columns of {PARAMS[split]} that are not read: {names}."
    _upload_report(report, task, storage)
    failure = _verdict(splits, task)
    if failure is not None:
        raise DataError(failure)
    manifest = DatasetManifest(
        source=source.replace(inputs={name: split.source for name, split in splits.items()}),
        splits={name: split.counts for name, split in splits.items()},
        advice=[*_advice(splits, task), *extra.values()],
        data_kind=splits[TRAIN].seen.kind,
        classes=splits[TRAIN].seen.classes,
        separator=splits[TRAIN].seen.separator or None,
        files=[file_entry(files, path) for split in splits.values() for path in split.paths],
    )
    say(f"writing the dataset to {uri}")
    with _about("output"):
        ticker = Ticker("writing the dataset")
        write_dataset(files, uri, storage, manifest, ticker)
    return manifest


def _prepared(
    task: PrepareTask,
    manifest: DatasetManifest,
    context: Context,
    shape: ModelShape | None,
    uri: S3Uri,
) -> Prepared:
    """The outcome from a dataset's manifest alone: a retry that finds one says the same."""
    train = manifest.splits[TRAIN]
    validation = manifest.splits.get(VALIDATION)
    resolution = resolve(
        task.hyperparameters,
        task.rules,
        task.base,
        examples=train.examples,
        context=context.length,
        method=task.method.type,
    )
    fitting = fit(shape, task, train.longest_example)
    advice = [
        *manifest.advice,
        *context.advice,
        *resolution.advice,
        *run_advice(train, resolution.hyperparameters, task.workers),
    ]
    for sentence in advice:
        say(f"advice: {sentence}")
    return Prepared(
        training_examples=train.examples,
        validation_examples=validation.examples if validation else 0,
        training_tokens=train.tokens,
        skipped_lines=sum(split.skipped_lines for split in manifest.splits.values()),
        steps=resolution.hyperparameters.steps(train.examples),
        hyperparameters=resolution.hyperparameters,
        dataset=str(uri),
        zero_stage=fitting.zero_stage if fitting else None,
        offload=fitting.offload if fitting else None,
        memory_per_rank_gib=fitting.gib if fitting else None,
        advice=advice or None,
    )


def _verdict(splits: dict[str, PreparedSplit], task: PrepareTask) -> Failure | None:
    """The first refused file's failure, with the other's findings behind its own."""
    failures = [verdict(split.checked, task.data_tolerance) for split in splits.values()]
    refused = [failure for failure in failures if failure is not None]
    if not refused:
        validation = splits.get(VALIDATION)
        seen = validation.seen if validation else None
        asked = task.classification
        return check_classes(asked, splits[TRAIN].seen, seen) if asked else None
    first, *others = refused
    lines = [
        *(first.lines or []),
        *(f"{other.param}, {line}" for other in others for line in other.lines or []),
    ]
    return first.replace(
        lines=lines[:20] or None, hint=f"every finding: {task.run.layout.data_report}"
    )


def _advice(splits: dict[str, PreparedSplit], task: PrepareTask) -> list[str]:
    """The most important first: a termination message that is full drops the last."""
    validation = splits.get(VALIDATION)
    advice: list[str] = []
    for split in splits.values():
        advice += skipped_advice(split.checked, task.data_tolerance)
    return advice + advise(
        splits[TRAIN].seen,
        validation.seen if validation else None,
        classes_are_asked=task.classification is not None,
    )


def _addresses(task: PrepareTask) -> dict[str, S3Uri]:
    given = {TRAIN: task.training_file, VALIDATION: task.validation_file}
    addresses = {}
    for split, text in given.items():
        if text is not None:
            try:
                addresses[split] = S3Uri.parse(text)
            except ValueError as error:
                raise DataError.of(
                    Reason.INVALID_SPEC, f"{PARAMS[split]}: {error}", param=PARAMS[split]
                ) from error
    return addresses


def _is_of(manifest: DatasetManifest, source: DatasetSource) -> bool:
    """Whether the dataset was made of these files, as they are now, in this way."""
    inputs = {
        name: known.replace(sha256="") if known.etag else known
        for name, known in manifest.source.inputs.items()
    }
    return manifest.source.replace(inputs=inputs) == source


def _upload_report(report: Report, task: PrepareTask, storage: Storage) -> None:
    """The report helps, and its absence must not hide what was found."""
    if not report.written:
        return
    try:
        storage.upload_file(report.path, task.run.layout.data_report)
    except StorageError as error:
        say(f"the report of all findings can't be written: {error}")
    else:
        say(f"{counted(report.written, 'finding')} in {task.run.layout.data_report}")


@contextmanager
def _about(param: str) -> Iterator[None]:
    """Let a storage error name the spec field it is about."""
    try:
        yield
    except StorageError as error:
        raise error.about(param) from error
