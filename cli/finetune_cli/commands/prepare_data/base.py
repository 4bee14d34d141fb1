"""The base model whose tokens are counted: a folder here, or fetched without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune_data.tokenize.tokenizer import ExampleTokenizer
    from finetune_storage.s3 import Storage


@dataclass(frozen=True)
class Base:
    """A tokenizer, and how many tokens an example may have."""

    tokenizer: ExampleTokenizer
    context: int | None


def storage_for(addresses: Sequence[str]) -> Storage | None:
    """A client where an address needs one: nobody without S3 pays for it."""
    if not any(address.startswith("s3://") for address in addresses):
        return None
    from finetune_storage.connect import open_storage

    return open_storage()


def load_base(model: str, context: int | None, storage: Storage | None, folder: Path) -> Base:
    """Raises BaseModelError or StorageError. context: what was asked for; None: the model's own."""
    from finetune_api.tasks import BaseModelRef
    from finetune_data.models.base_models import fetch_base_model
    from finetune_data.tokenize.tokenizer import load_tokenizer, model_positions
    from finetune_storage.connect import open_storage

    place = Path(model).expanduser()
    if not place.is_dir():
        reference = BaseModelRef(
            name=model, root=model, uri=model, pretraining_learning_rate=1, context_length=8
        )
        storage = storage or open_storage()
        place = fetch_base_model(reference, folder / "model", storage, weights=False)
    return Base(load_tokenizer(place, model), context or model_positions(place))
