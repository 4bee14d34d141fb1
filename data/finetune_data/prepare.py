"""The prepare Job: from a PrepareTask to an Outcome, and a tokenised dataset in S3.

In this order, so that what is cheap fails first: addresses, the data files' existence, the base
model's tokenizer, a dataset of an earlier try, then every line of the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.names import Reason
from finetune_api.outcome import Failure, Outcome, Prepared
from finetune_api.tasks import PrepareTask
from finetune_api.uris import S3Uri
from finetune_data.base_models import fetch_base_model
from finetune_data.checks import overlap_advice, skipped_advice, verdict
from finetune_data.dataset import (
    TRAIN,
    VALIDATION,
    DatasetManifest,
    DatasetSource,
    InputFile,
    read_manifest,
    write_dataset,
)
from finetune_data.failures import DataError, FailureError
from finetune_data.findings import FileFindings, Report, counted
from finetune_data.inputs import open_input
from finetune_data.manifests import file_entry
from finetune_data.progress import Ticker, say
from finetune_data.resolution import Context, resolve, resolve_context
from finetune_data.splits import PreparedSplit, SplitRules, prepare_split
from finetune_data.storage import Storage, StorageError
from finetune_data.tokenization import ExampleTokenizer, load_tokenizer, model_positions

PARAMS = {TRAIN: "trainingFile", VALIDATION: "validationFile"}


def prepare(task: PrepareTask, storage: Storage, folder: Path) -> Outcome:
    """Do the whole task, with `folder` for files on the way. Every foreseen error is a failure."""
    try:
        return Outcome(prepared=_prepare(task, storage, folder))
    except FailureError as error:
        return Outcome(failure=error.failure)


def _prepare(task: PrepareTask, storage: Storage, folder: Path) -> Prepared:
    addresses = _addresses(task)
    present = {split: _head(split, uri, storage) for split, uri in addresses.items()}
    say(f"fetching the tokenizer of {task.base.name} from {task.base.uri}")
    model = fetch_base_model(task.base, folder / "model", storage, weights=False)
    tokenizer = load_tokenizer(model, task.base.name)
    context = resolve_context(
        task.hyperparameters.max_sequence_length, task.base, model_positions(model)
    )
    source = DatasetSource(
        tokenizer_sha256=tokenizer.digest,
        context_length=context.length,
        data_tolerance=task.data_tolerance,
        inputs=present,
    )
    with _about("output"):
        manifest = read_manifest(task.run.layout.dataset, storage)
    if manifest is not None and _is_of(manifest, source):
        say(f"the dataset of an earlier try at {task.run.layout.dataset} is complete and is used")
    else:
        manifest = _build(task, storage, folder, tokenizer, source)
    return _prepared(task, manifest, context)


def _build(
    task: PrepareTask,
    storage: Storage,
    folder: Path,
    tokenizer: ExampleTokenizer,
    source: DatasetSource,
) -> DatasetManifest:
    """Read every line, and write the dataset unless one of the files is refused."""
    files = folder / "dataset"
    files.mkdir()
    rules = SplitRules(task.base.name, source.context_length, task.limits)
    splits: dict[str, PreparedSplit] = {}
    with Report(folder / "data-report.jsonl") as report:
        for split, known in source.inputs.items():
            findings = FileFindings(PARAMS[split], known.uri, report)
            say(f"checking and tokenising {PARAMS[split]} {known.uri}: {known.size:,} bytes")
            with _about(PARAMS[split]), open_input(known.uri, storage) as stream:
                splits[split] = prepare_split(
                    split, stream, files, tokenizer=tokenizer, rules=rules, findings=findings
                )
    _upload_report(report, task, storage)
    failure = _verdict(splits, task)
    if failure is not None:
        raise DataError(failure)
    manifest = DatasetManifest(
        source=source.replace(inputs={name: split.source for name, split in splits.items()}),
        splits={name: split.counts for name, split in splits.items()},
        advice=_advice(splits, task.data_tolerance),
        files=[file_entry(files, path) for split in splits.values() for path in split.paths],
    )
    say(f"writing the dataset to {task.run.layout.dataset}")
    with _about("output"):
        ticker = Ticker("writing the dataset")
        write_dataset(files, task.run.layout.dataset, storage, manifest, ticker)
    return manifest


def _prepared(task: PrepareTask, manifest: DatasetManifest, context: Context) -> Prepared:
    """The outcome from a dataset's manifest alone: a retry that finds one says the same."""
    train = manifest.splits[TRAIN]
    validation = manifest.splits.get(VALIDATION)
    resolution = resolve(
        task.hyperparameters,
        task.rules,
        task.base,
        examples=train.examples,
        context=context.length,
    )
    advice = [*manifest.advice, *context.advice, *resolution.advice]
    for sentence in advice:
        say(f"advice: {sentence}")
    return Prepared(
        training_examples=train.examples,
        validation_examples=validation.examples if validation else 0,
        training_tokens=train.tokens,
        skipped_lines=sum(split.skipped_lines for split in manifest.splits.values()),
        steps=resolution.hyperparameters.steps(train.examples),
        hyperparameters=resolution.hyperparameters,
        advice=advice or None,
    )


def _verdict(splits: dict[str, PreparedSplit], task: PrepareTask) -> Failure | None:
    """The first refused file's failure, with the other's findings behind its own."""
    failures = [verdict(split.checked, task.data_tolerance) for split in splits.values()]
    refused = [failure for failure in failures if failure is not None]
    if not refused:
        return None
    first, *others = refused
    lines = [
        *(first.lines or []),
        *(f"{other.param}, {line}" for other in others for line in other.lines or []),
    ]
    return first.replace(
        lines=lines[:20] or None, hint=f"every finding: {task.run.layout.data_report}"
    )


def _advice(splits: dict[str, PreparedSplit], tolerance: float) -> list[str]:
    """The most important first: a termination message that is full drops the last."""
    train, validation = splits[TRAIN], splits.get(VALIDATION)
    advice: list[str] = []
    for split in splits.values():
        advice += skipped_advice(split.checked, tolerance)
    if validation is not None:
        advice += overlap_advice(train.fingerprints, validation.fingerprints)
    for name, split in splits.items():
        advice += split.fingerprints.copies_advice(PARAMS[name])
        advice += split.fingerprints.extra_keys_advice(PARAMS[name])
    return advice + train.fingerprints.size_advice()


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


def _head(split: str, uri: S3Uri, storage: Storage) -> InputFile:
    """What the file is before it is read; its digest is known only afterwards."""
    with _about(PARAMS[split]):
        entry = storage.head(uri)
    return InputFile(uri=str(uri), etag=entry.etag, size=entry.size, sha256="")


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
