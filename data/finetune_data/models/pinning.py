"""Pins a base model: one revision for all pods and attempts of a FineTune.

The prepare pod resolves the address once, and its outcome carries the revision to the training.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from finetune_api.names import ENV_BASE_REVISION
from finetune_api.tasks import BaseModelRef
from finetune_api.wire import Stored
from finetune_data.models.base_models import find_remote_model
from finetune_data.pod_log import log
from finetune_storage.s3 import Storage


class PinnedBase(Stored):
    """The file that the containers of the prepare pod share."""

    uri: str
    revision: str


def pin_base_model(base: BaseModelRef, folder: Path, storage: Storage) -> BaseModelRef:
    """`base` with the revision of its files, or with the one that an earlier container resolved.

    folder: where its files would be. Raises BaseModelError or StorageError.
    """
    if base.revision is None:
        base = base.replace(revision=_read(base))
    if base.revision is None:
        model = find_remote_model(base, folder, storage, weights=False)
        base = base.replace(revision=model.revision)
        _write(base)
    log(f"the base model has the revision {base.revision}")
    return base


def _read(base: BaseModelRef) -> str | None:
    path = _shared()
    if path is None or not path.is_file():
        return None
    try:
        found = PinnedBase.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
    return found.revision if found.uri == base.uri else None


def _write(base: BaseModelRef) -> None:
    path = _shared()
    if path is not None:
        path.write_text(PinnedBase(uri=base.uri, revision=base.revision or "").to_json())


def _shared() -> Path | None:
    """None outside of a prepare pod that checks the base model first."""
    name = os.environ.get(ENV_BASE_REVISION)
    return Path(name) if name else None
