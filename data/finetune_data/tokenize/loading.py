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
from finetune_data.tokenize.chats.control_tokens import ControlToken
from finetune_data.tokenize.chats.source import TemplateSource, find_template
from finetune_data.tokenize.chats.turns import ChatTemplate
from finetune_data.tokenize.tokenizer import ExampleTokenizer, control_tokens

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
        by_id = [
            it for part in (generation, config) for it in _numbers(part.get(f"{kind}_token_id"))
        ]
        return next((found for found in (by_text, *by_id) if found is not None), None)

    bos, eos = token("bos"), token("eos")
    if eos is None:
        problem = "its tokenizer has no end-of-sequence token"
        raise BaseModelError(failures.unusable_model(name, problem))
    stops = frozenset(
        number for part in (generation, config) for number in _numbers(part.get("eos_token_id"))
    )
    return ExampleTokenizer(
        backend,
        start=_start_tokens(backend, settings.get("add_bos_token"), bos),
        bos=bos,
        eos=eos,
        vocabulary=vocabulary if isinstance(vocabulary, int) else None,
        template=_chat_template(source, settings, backend, eos, stops) if source else None,
        name=name,
    )


def _chat_template(
    source: TemplateSource,
    settings: dict[str, Any],
    backend: Tokenizer,
    eos: int,
    stops: frozenset[int],
) -> ChatTemplate:
    names = {}
    for kind in ("bos", "eos", "unk", "pad"):
        written = settings.get(f"{kind}_token")
        text = written.get("content") if isinstance(written, dict) else written
        if isinstance(text, str):
            names[f"{kind}_token"] = text
    tokens = control_tokens(backend)
    end = next((token for token in tokens if token.id == eos), None)
    if end is None:  # a token of the vocabulary, which is not found before everything else
        end = ControlToken(eos, backend.id_to_token(eos) or "", is_special=False)
    return ChatTemplate(source, names, tokens, eos=end, stop_ids=stops)


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


def _numbers(value: object) -> list[int]:
    """A token id, or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [it for it in values if isinstance(it, int) and not isinstance(it, bool)]
