"""Finds the model that a former FineTune of the same name has trained in the same way.

A FineTune that is deleted and created again, or moved to another cluster, has another UID and thus
another prefix. Only prefixes of this namespace and this name are searched, below this output. Their
contents are untrusted: every byte that is adopted is verified, and whatever goes wrong costs only
the adoption, because the model can be trained.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from finetune_api.layout import MANIFEST, RunLayout
from finetune_api.model_names import fine_tuned_model_name
from finetune_api.names import Reason
from finetune_api.outcome import Adopted, Prepared
from finetune_api.tasks import PrepareTask, ReuseRef, RunRef
from finetune_api.uris import S3Uri
from finetune_api.wire import Stored, parse_json
from finetune_data.lookup.provenance import (
    Recipe,
    RunManifest,
    find_difference,
    find_gap,
    recipe,
)
from finetune_data.lookup.published import ModelManifest, trained_of
from finetune_data.pod_log import ProgressLog, log
from finetune_data.tokenize.dataset import DatasetManifest, DatasetSource, SplitCounts
from finetune_storage.errors import StorageError
from finetune_storage.manifests import HASH_BLOCK, HASHES_AT_ONCE, FileEntry, file_uri
from finetune_storage.progress import ProgressMeter
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry

PREFIXES = 100  # whose newest models are known; the others are not looked at
MODELS = 10  # whose manifests are read, the newest first
MANIFEST_BYTES = 4 * 2**20  # at most; a larger file is not a manifest of ours
FILES = 10_000  # of a model, at most

UID8 = re.compile(r"[0-9a-f]{8}")
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STAMP = re.compile(r"-\d{4}(-\d\d){5}")  # the end of a model's name

Part = TypeVar("Part", bound=Stored)


class Search(NamedTuple):
    """The model to adopt, if there is one, and sentences about models that cannot be adopted."""

    adopted: Adopted | None
    advice: list[str]


class _UnusableError(Exception):
    """A published model cannot be adopted. The text continues "the model at URI ..."."""


class _OtherError(Exception):
    """A published model was trained in another way, as the text says."""


def find_same(
    task: PrepareTask, dataset: DatasetManifest, prepared: Prepared, storage: Storage
) -> Search:
    """Search below `<output>/<namespace>/<name>-*`, the newest model first.

    task: with the revision of the base model. dataset: of the data of this FineTune. Never raises
    an exception.
    """
    if task.reuse is None:
        return Search(None, [])
    advice: list[str] = []
    try:
        wanted = _recipe_of(task, dataset, prepared)
        roots = _published(task.run, storage, advice)
    except Exception as error:
        return Search(None, [_not_searched(task.run, error)])
    for root in roots:
        try:
            found = _examine(root, task.run, task.reuse, wanted, storage)
        except _OtherError as error:
            log(f"the model at {root.child('model')} is not adopted: {error}")
        except Exception as error:  # of a store, or of what another user has put there
            advice.append(f"The model at {root.child('model')} is not adopted: {_cause(error)}.")
        else:
            log(f"the model at {root.child('model')} was trained in the same way")
            return Search(found, advice)
    return Search(None, advice)


def _recipe_of(task: PrepareTask, dataset: DatasetManifest, prepared: Prepared) -> Recipe:
    gap = find_gap(task.base, dataset.source)
    if gap is not None:
        raise _UnusableError(f"this FineTune does not know {gap}")
    return recipe(
        *(task.base, prepared.hyperparameters, task.method),
        accelerator=task.workers.accelerator,
        source=dataset.source,
        splits=dataset.splits,
        shares=dataset.training_files,
    )


def _published(run: RunRef, storage: Storage, advice: list[str]) -> list[S3Uri]:
    """The prefixes of former FineTunes of this name that published a model, the newest first."""
    prefix, start = run.layout.root, f"{run.name}-"
    parent = S3Uri.parse(run.output).child(run.namespace)
    names = [name for name in storage.folders(parent, start) if UID8.fullmatch(name[len(start) :])]
    names = [name for name in names if parent.child(name) != prefix]
    if len(names) > PREFIXES:
        log(f"only {PREFIXES} of {len(names)} prefixes of former FineTunes are searched")
    found = []
    for name in names[:PREFIXES]:
        root = parent.child(name)
        try:
            found.append((storage.head(root.child("model", MANIFEST)).modified, root))
        except StorageError as error:
            if error.failure.code != Reason.DATA_NOT_FOUND:
                advice.append(f"The model at {root.child('model')} is not adopted: {error}.")
    found.sort(key=lambda item: item[0], reverse=True)
    return [root for _, root in found[:MODELS]]


def _examine(
    root: S3Uri, run: RunRef, reuse: ReuseRef, wanted: Recipe, storage: Storage
) -> Adopted:
    """The model below `root`. Raises an exception unless it is the wanted one, and undamaged."""
    data = _read(root.child("model", MANIFEST), storage)
    manifest = _parse(data, ModelManifest)
    uid = manifest.fine_tune_uid
    former = run.replace(uid=uid)
    if not UID.fullmatch(uid) or former.layout.root != root or uid == run.uid:
        raise _UnusableError("its manifest names the FineTune of another prefix")
    if manifest.fine_tune != f"{run.namespace}/{run.name}":
        raise _UnusableError("its manifest names another FineTune")
    provenance = _parse(_read(former.layout.manifest, storage), RunManifest)
    found, trained = trained_of(former, manifest, data), provenance.trained
    if provenance.run != former:
        raise _UnusableError("its provenance names another FineTune or another output")
    if trained is None or trained.model_manifest_sha256 != found.model_manifest_sha256:
        raise _UnusableError("its provenance is not that of this manifest")
    if trained.fine_tuned_model != manifest.id:
        raise _UnusableError("its provenance names another model")
    _compare(provenance, wanted)
    if _without_time(manifest.id) != _expected_name(provenance, reuse):
        raise _OtherError("its name has another organization or suffix")
    _verify(former.layout, manifest.files, storage)
    return Adopted.of(uid, found)


def _read(uri: S3Uri, storage: Storage) -> bytes:
    data = storage.read_range(uri, 0, MANIFEST_BYTES + 1)
    if len(data) > MANIFEST_BYTES:
        raise _UnusableError(f"its {MANIFEST} has more than {MANIFEST_BYTES:,} bytes")
    return data


def _parse(data: bytes, kind: type[Part]) -> Part:
    try:
        return _strictly(parse_json(data), kind)
    except ValueError as error:  # its text may be that of a stranger
        raise _UnusableError(
            f"its {MANIFEST} cannot be read, or is that of another version"
        ) from error


def _strictly(raw: Any, kind: type[Part]) -> Part:
    """The value, which has every key of `raw`: what this version does not know may be decisive.

    Raises ValueError otherwise.
    """
    value = kind.model_validate(raw)
    if not _is_part(raw, value.to_dict()):
        raise ValueError(f"a {kind.__name__} has unknown keys")
    return value


def _is_part(raw: Any, whole: Any) -> bool:
    """Whether `whole` has all keys and values of `raw`. An empty one counts as missing."""
    if isinstance(raw, dict) and isinstance(whole, dict):
        return all(it is None or _is_part(it, whole.get(key)) for key, it in raw.items())
    if isinstance(raw, list) and isinstance(whole, list):
        return len(raw) == len(whole) and all(map(_is_part, raw, whole))
    return bool(raw == whole)


def _compare(provenance: RunManifest, wanted: Recipe) -> None:
    """Raise an exception unless the training is the wanted one."""
    try:
        source = _strictly(provenance.dataset, DatasetSource)
        splits = {name: _strictly(it, SplitCounts) for name, it in provenance.splits.items()}
    except ValueError as error:
        raise _OtherError("its data is recorded in the way of another version") from error
    gap = find_gap(provenance.base, source)
    if gap is not None:
        raise _OtherError(f"its provenance lacks {gap}")
    found = recipe(
        *(provenance.base, provenance.hyperparameters, provenance.method),
        accelerator=provenance.accelerator,
        source=source,
        splits=splits,
        shares=provenance.training_files,
    )
    difference = find_difference(wanted, found)
    if difference is not None:
        raise _OtherError(f"it differs in: {difference}")


def _without_time(name: str) -> str:
    """The name of a model without the time at its end; empty if it has none."""
    found = STAMP.search(name, max(0, len(name) - 20))
    return name[: found.start()] if found and found.end() == len(name) else ""


def _expected_name(provenance: RunManifest, reuse: ReuseRef) -> str:
    now = datetime.now(UTC)
    root = provenance.base.root
    return _without_time(fine_tuned_model_name(root, reuse.organization, reuse.suffix, now))


def _verify(layout: RunLayout, files: list[FileEntry], storage: Storage) -> None:
    """Raise _UnusableError or StorageError unless every file has its size and its digest."""
    names = {entry.path for entry in files}
    if len(names) != len(files) or len(files) > FILES or MANIFEST in names:
        raise _UnusableError("its manifest lists files twice, or too many")
    if "config.json" not in names or not any(it.endswith(".safetensors") for it in names):
        raise _UnusableError("its manifest lists no weights")
    total = sum(entry.size for entry in files)
    objects: list[tuple[S3Uri, ObjectEntry, str]] = []
    for entry in files:
        uri = file_uri(layout.model, entry.path)
        if uri is None:
            raise _UnusableError("its manifest lists a file outside of the model")
        known = storage.head(uri)
        if known.size != entry.size:
            raise _UnusableError(f"{uri} has {known.size:,} bytes instead of {entry.size:,}")
        objects.append((uri, known, entry.sha256))
    log(f"verifying the model at {layout.model}: {total:,} bytes")
    meter = ProgressMeter(total, ProgressLog("verifying the model"))

    def check(item: tuple[S3Uri, ObjectEntry, str]) -> S3Uri | None:
        uri, known, wanted = item
        digest = sha256()
        with storage.open_stream(uri, known) as stream:
            while block := stream.read(HASH_BLOCK):
                digest.update(block)
                meter(len(block))
        return None if digest.hexdigest() == wanted else uri

    with ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="sha256") as pool:
        try:
            damaged = next(filter(None, pool.map(check, objects)), None)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if damaged is not None:
        raise _UnusableError(f"{damaged} has a SHA-256 that differs from its manifest")


def _not_searched(run: RunRef, error: Exception) -> str:
    return (
        f"Models of former FineTunes with the name {run.name} were not searched for, so this one "
        f"trains: {_cause(error)}."
    )


def _cause(error: Exception) -> str:
    """A sentence without its dot. Only our own exceptions have texts that may be shown."""
    if isinstance(error, StorageError | _UnusableError):
        return str(error).removesuffix(".")
    return f"it caused {type(error).__name__}"
