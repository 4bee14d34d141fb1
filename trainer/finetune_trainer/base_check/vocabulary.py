"""Compares the tokens of the tokenizer with the rows of the embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.errors import FailureError
from finetune_data.models.base_models import read_json
from finetune_trainer import base_model_failures

if TYPE_CHECKING:
    from torch.nn import Module

TOKENIZER = "tokenizer.json"


def check_vocabulary(folder: Path, model: "Module") -> None:
    """Raise FailureError (BaseModelInvalid) if a token has no row in the embeddings.

    The padding token may have none: many fine-tunes added one without a row, and neither training
    nor generation of one text reads it. A tokenizer that cannot be read is the error of others.
    """
    find: Any = getattr(model, "get_input_embeddings", lambda: None)
    table = getattr(find(), "weight", None)
    if table is None:
        return
    rows = int(table.shape[0])
    padding = _padding(folder)
    beyond = sorted(
        (number, token)
        for token, number in _tokens(folder).items()
        if number >= rows and token != padding
    )
    if beyond:
        shown = [f"token {number} is {token!r:.100}" for number, token in beyond]
        raise FailureError(base_model_failures.large_vocabulary(shown, beyond[-1][0], rows))


def _tokens(folder: Path) -> dict[str, int]:
    try:
        if (folder / TOKENIZER).is_file():
            from tokenizers import Tokenizer

            found: dict[str, int] = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab()
            return found
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
        return dict(tokenizer.get_vocab())
    except Exception:  # the libraries raise no narrower types; the prepare container reports it
        return {}


def _padding(folder: Path) -> str | None:
    try:
        settings = {
            **read_json(folder / "special_tokens_map.json"),
            **read_json(folder / "tokenizer_config.json"),
        }
    except ValueError:
        return None
    token = settings.get("pad_token")
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
