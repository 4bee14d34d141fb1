"""The check container of the prepare Job: from a PrepareTask to nothing, or a failure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from finetune_api.layout import base_check_uri
from finetune_api.tasks import PrepareTask
from finetune_api.uris import S3Uri
from finetune_data.confined.sections import GIB
from finetune_data.models.pinning import pin_base_model
from finetune_data.models.skeleton import Skeleton, fetch_skeleton
from finetune_data.pod_log import log
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage
from finetune_trainer import base_check, engine
from finetune_trainer.run_manifest import versions

KEY_CHARACTERS = 32
# On a slow CPU, a large model needs milliseconds for each tensor.
CHECK_SECONDS, SECONDS_A_TENSOR, CHECK_BYTES = 40.0, 0.005, 2 * GIB
# A verdict of another code is not that of this one.
CODE = (Path(base_check.__file__).parent, Path(engine.__file__).parent)


def check(task: PrepareTask, storage: Storage, folder: Path) -> None:
    """Check the base model of a task, unless this code has checked an equal one before.

    folder: for the headers of the weights. Raises FailureError.
    """
    log(f"reading the headers of {task.base.name} at {task.base.uri}")
    pinned = pin_base_model(task.base, folder, storage)
    base = fetch_skeleton(pinned, folder, storage)
    targets = task.method.targets if task.method.type == "lora" else None
    key = _key(base, pinned.revision, targets)
    verdict = base_check_uri(task.run.output, task.run.namespace, key[:KEY_CHARACTERS])
    if _is_known(verdict, key, storage):
        log(f"the base model was checked before: {verdict}")
        return
    count = len(base.tensors)
    log(f"checking the base model: {count:,} tensors in {len(base.files):,} files")
    _import_libraries()
    from finetune_trainer.base_check.check import check_base_model, checking

    with checking(task.base.name, CHECK_SECONDS + count * SECONDS_A_TENSOR, CHECK_BYTES).at():
        check_base_model(base, log, targets)
    log("the base model can be trained")
    _remember(verdict, key, storage)


def _import_libraries() -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # more than the container's CPUs would only wait for each other


def _key(base: Skeleton, revision: str | None, targets: Sequence[str] | None) -> str:
    """A digest of everything that the verdict depends on, including the checking code."""
    sources = [path for folder in CODE for path in sorted(folder.glob("*.py"))]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    parts = [base.digest, revision, code, versions(), sorted(targets or ())]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_known(verdict: S3Uri, key: str, storage: Storage) -> bool:
    try:
        found = json.loads(storage.read_bytes(verdict))
    except (StorageError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("checked") == key


def _remember(verdict: S3Uri, key: str, storage: Storage) -> None:
    """Keep a good verdict. A bad one is found again, which costs seconds and never a GPU."""
    try:
        storage.write_bytes(verdict, json.dumps({"kind": "base-check", "checked": key}).encode())
    except StorageError as error:
        log(f"the next FineTune checks the base model again, because {error}")
