"""Base models by folder or address, with or without their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune_api.tasks import BaseModelRef
    from finetune_data.tokenize.tokenizer import Tokenizing
    from finetune_storage.s3 import Storage


@dataclass(frozen=True)
class BaseTokenizer:
    """The tokenizer of a base model, and the maximum number of tokens in an example."""

    tokenizer: Tokenizing
    context: int | None


def storage_for(addresses: Sequence[str]) -> Storage | None:
    """A storage client if one of the addresses is in S3; creating a client takes time."""
    if not any(address.startswith("s3://") for address in addresses):
        return None
    from finetune_storage.connect import open_storage

    return open_storage()


def model_at(address: str) -> BaseModelRef:
    """A reference to the base model at an address, for functions that only download it."""
    from finetune_api.tasks import BaseModelRef

    return BaseModelRef(
        name=address, root=address, uri=address, pretraining_learning_rate=1, context_length=8
    )


def load_base_tokenizer(
    model: str, context: int | None, storage: Storage | None, folder: Path
) -> BaseTokenizer:
    """Load the tokenizer from a local folder, or download it into `folder` without the weights.

    context: the requested length; None: the model's own. Raises BaseModelError or StorageError.
    """
    from finetune_data.models.base_models import fetch_base_model, model_positions
    from finetune_data.tokenize.confined_tokenizer import ConfinedTokenizer
    from finetune_storage.connect import open_storage

    path = Path(model).expanduser()
    if not path.is_dir():
        storage = storage or open_storage()
        path = fetch_base_model(model_at(model), folder / "model", storage, weights=False)
    tokenizer = ConfinedTokenizer(path, model)
    limits = [limit for limit in (context, model_positions(path)) if limit is not None]
    return BaseTokenizer(tokenizer, min(limits, default=None))
