"""Loads the tokenizer of a base model.

The `tokenizers` library reads tokenizer.json (its import takes 0.2 s). Only models without that
file need transformers, which does not need torch for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_data.models.base_models import CONFIG, read_json, text_settings
from finetune_data.tokenize.chat_templates import ChatTemplate, TemplateSource, find_template
from finetune_data.tokenize.tokenizer import ExampleTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path, name: str) -> ExampleTokenizer:
    """The tokenizer of the base model `name` in `folder`.

    Raises BaseModelError (BaseModelInvalid).
    """
    try:
        config = read_json(folder / CONFIG)
        special = read_json(folder / "special_tokens_map.json")
        settings = {**special, **read_json(folder / "tokenizer_config.json")}
        generation = read_json(folder / "generation_config.json")
        path = folder / "tokenizer.json"
        backend = _read_backend(path) if path.is_file() else _convert_backend(folder)
        source = find_template(folder, settings)
    except ValueError as error:
        raise BaseModelError(failures.unusable_model(name, str(error))) from error
    vocabulary = config.get("vocab_size") or text_settings(config).get("vocab_size")

    def token(kind: str) -> int | None:
        written = settings.get(f"{kind}_token")
        text = written.get("content") if isinstance(written, dict) else written
        by_text = backend.token_to_id(text) if isinstance(text, str) else None
        by_id = (_first(source.get(f"{kind}_token_id")) for source in (generation, config))
        return next((found for found in (by_text, *by_id) if found is not None), None)

    bos, eos = token("bos"), token("eos")
    if eos is None:
        problem = "its tokenizer has no end-of-sequence token"
        raise BaseModelError(failures.unusable_model(name, problem))
    return ExampleTokenizer(
        backend,
        start=_start_tokens(backend, settings.get("add_bos_token"), bos),
        bos=bos,
        eos=eos,
        vocabulary=vocabulary if isinstance(vocabulary, int) else None,
        template=_chat_template(source, settings, backend) if source else None,
        name=name,
    )


def _chat_template(
    source: TemplateSource, settings: dict[str, Any], backend: Tokenizer
) -> ChatTemplate:
    tokens = {}
    for kind in ("bos", "eos", "unk", "pad"):
        written = settings.get(f"{kind}_token")
        text = written.get("content") if isinstance(written, dict) else written
        if isinstance(text, str):
            tokens[f"{kind}_token"] = text
    added = backend.get_added_tokens_decoder().values()
    return ChatTemplate(source, tokens, [token.content for token in added if token.special])


def _start_tokens(backend: Tokenizer, add_bos: object, bos: int | None) -> list[int]:
    if isinstance(add_bos, bool):  # in transformers this setting overrides tokenizer.json
        return [bos] if add_bos and bos is not None else []
    encoding = backend.encode("a", add_special_tokens=True)
    count = next((i for i, mark in enumerate(encoding.special_tokens_mask) if not mark), 0)
    return list(encoding.ids[:count])


def _read_backend(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise ValueError(f"tokenizer.json cannot be read: {error}") from error


def _convert_backend(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        backend: Tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        ).backend_tokenizer
        return backend
    except Exception as error:  # transformers raises many types for a broken file
        detail = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"it has no tokenizer.json and its tokenizer cannot be converted "
            f"({type(error).__name__}: {detail})"
        ) from error


def _first(value: object) -> int | None:
    """A token id, or the first one of a list."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) else None
