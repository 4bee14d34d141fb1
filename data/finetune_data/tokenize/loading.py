"""Loads the tokenizer of a base model exactly as inference servers do: with AutoTokenizer.

transformers decides by the class that the configurations name, the type of the model, and the files
that exist whether tokenizer.json is used as it is, which tokens a text starts and ends with, and
which chat template applies. vLLM, SGLang, and TGI ask the same function. It runs no code that comes
with a model, reads only the folder, and needs no torch.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.names import Reason
from finetune_data import failures
from finetune_data.confined.sections import GIB, Section, Subject, set_place
from finetune_data.errors import BaseModelError
from finetune_data.models.base_models import CONFIG, read_json, text_settings
from finetune_data.tokenize.chats.control_tokens import ControlToken
from finetune_data.tokenize.chats.source import TemplateSource, find_template
from finetune_data.tokenize.chats.turns import ChatTemplate
from finetune_data.tokenize.end_tokens import GENERATION, read_tolerantly, valid_tokens
from finetune_data.tokenize.text_encoder import broken_tokenizer
from finetune_data.tokenize.tokenizer import ExampleTokenizer, control_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FAST, SETTINGS = "tokenizer.json", "tokenizer_config.json"
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
VOCABULARIES = ("vocab.json", "vocab.txt")
LOAD_SECONDS, LOAD_BYTES = 30.0, 3 * GIB
PROBES = ("a", "0", " ", "\n")  # texts, to see what the tokenizer puts around them
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+\r?\n")  # a line: base64, rank


def load_tokenizer(folder: Path, name: str) -> ExampleTokenizer:
    """The tokenizer of the base model `name` in `folder`.

    Raises BaseModelError (BaseModelInvalid).
    """
    subject = Subject(
        f"loading the tokenizer of base model {name!r}",
        failures.REPAIR_MODEL,
        str(Reason.BASE_MODEL_INVALID),
        param="model",
    )
    set_place("")
    with Section(subject, LOAD_SECONDS, LOAD_BYTES).at(), broken_tokenizer(name):
        return _load(folder, name)


def _load(folder: Path, name: str) -> ExampleTokenizer:
    try:
        config = read_json(folder / CONFIG)
        settings = read_json(folder / SETTINGS)
        generation = read_tolerantly(folder / GENERATION)
        source = find_template(folder, settings)
        made = load_as_server(folder)
        backend: Tokenizer = made.backend_tokenizer
    except ValueError as error:
        raise BaseModelError(failures.unusable_model(name, str(error))) from error
    size = text_settings(config).get("vocab_size")
    vocabulary = size if isinstance(size, int) else None

    def token(kind: str) -> int | None:
        found = [getattr(made, f"{kind}_token_id")]
        found += [part.get(f"{kind}_token_id") for part in (generation, config)]
        valid = [number for value in found for number in valid_tokens(value, vocabulary)]
        return valid[0] if valid else None

    bos, eos = token("bos"), token("eos")
    if eos is None:
        problem = "its tokenizer has no end-of-sequence token"
        raise BaseModelError(failures.unusable_model(name, problem))
    stops = frozenset(
        number
        for part in (generation, config)
        for number in valid_tokens(part.get("eos_token_id"), vocabulary)
    )
    start, finish = _surroundings(backend)
    # transformers has made a million objects that stay: without them, collections during the
    # encoding of batches are short
    gc.collect()
    gc.freeze()
    return ExampleTokenizer(
        backend,
        start=start,
        finish=finish,
        bos=bos,
        eos=eos,
        vocabulary=vocabulary,
        template=_chat_template(source, made, eos, stops, name) if source else None,
        name=name,
    )


def load_as_server(folder: Path) -> Any:
    """transformers' tokenizer. Raises ValueError.

    A generic one if AutoTokenizer refuses tokenizer.json because of settings next to it, such as
    code that comes with the model, or a class that does not exist. The published model names it.
    """
    if not (folder / FAST).is_file():
        _check_vocabulary(folder)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # such as that torch is missing
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, logging

    def load(kind: Any, **options: Any) -> Any:
        return kind.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True, **options
        )

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its warnings are about settings of others
    try:
        made = load(AutoTokenizer, mistral_format=False)
        if getattr(made, "backend_tokenizer", None) is None:
            raise ValueError(f"transformers has no fast tokenizer for {type(made).__name__}")
        is_generic = type(made) is PreTrainedTokenizerFast
        return (
            made if is_generic or not _loses_bytes(folder, made) else load(PreTrainedTokenizerFast)
        )
    except Exception as error:  # transformers raises many types for a broken file
        with contextlib.suppress(Exception):
            if (folder / FAST).is_file():
                return load(PreTrainedTokenizerFast)
        raise ValueError(_problem(folder, error)) from error
    finally:
        logging.set_verbosity(verbosity)


def _problem(folder: Path, error: Exception) -> str:
    """The reason why transformers cannot load a tokenizer, in words."""
    from tokenizers import Tokenizer

    what = "transformers cannot load its tokenizer"
    if (folder / FAST).is_file():
        try:
            Tokenizer.from_file(str(folder / FAST))
        except Exception as broken:  # the library raises no narrower type
            what, error = f"{FAST} cannot be read", broken
    detail = str(error).strip().partition("\n")[0][:200]
    return f"{what}: {type(error).__name__}: {detail}"


def _check_vocabulary(folder: Path) -> None:
    """Raise ValueError for a tokenizer without tokenizer.json that cannot be converted."""
    model = next((folder / name for name in SENTENCEPIECE if (folder / name).is_file()), None)
    if model is not None:
        if _is_tiktoken(model):
            raise ValueError(_unsupported(model.name, "tiktoken's format"))
        _require_sentencepiece(model.name)
    elif not any((folder / name).is_file() for name in VOCABULARIES):
        if (folder / "tekken.json").is_file():
            raise ValueError(_unsupported("tekken.json", "the format of mistral-common"))
        raise ValueError(f"it has no tokenizer: {FAST} is missing")


def _unsupported(name: str, kind: str) -> str:
    return (
        f"its only tokenizer, {name}, has {kind}: convert it to {FAST} with "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers"
    )


def _is_tiktoken(path: Path) -> bool:
    with path.open("rb") as file:
        return _TIKTOKEN.fullmatch(file.readline(1000)) is not None


def _require_sentencepiece(name: str) -> None:
    if None in (find_spec("sentencepiece"), find_spec("google") and find_spec("google.protobuf")):
        raise ValueError(
            f"its only tokenizer is {name}, and the Python packages sentencepiece and protobuf, "
            "which read it, are not installed"
        )


def _loses_bytes(folder: Path, made: Any) -> bool:
    """Whether tokenizer.json works on bytes, but the class of the tokenizer on characters.

    This is the class for the type of the model if tokenizer_config.json names none.
    """
    path, backend = folder / FAST, made.backend_tokenizer
    if not path.is_file() or "ByteLevel" in f"{backend.pre_tokenizer} {backend.decoder}":
        return False
    written = read_json(path)
    return "ByteLevel" in f"{written.get('pre_tokenizer')} {written.get('decoder')}"


def _surroundings(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and after every text."""
    backend.no_truncation()  # tokenizer.json can have either setting from an earlier use
    backend.no_padding()
    for probe in PROBES:
        encoding = backend.encode(probe, add_special_tokens=True)
        inside = [index for index, mark in enumerate(encoding.special_tokens_mask) if not mark]
        if inside:
            return list(encoding.ids[: inside[0]]), list(encoding.ids[inside[-1] + 1 :])
    return [], []


def _chat_template(
    source: TemplateSource, made: Any, eos: int, stops: frozenset[int], name: str
) -> ChatTemplate:
    backend: Tokenizer = made.backend_tokenizer
    tokens: Sequence[ControlToken] = control_tokens(backend)
    end = next((token for token in tokens if token.id == eos), None)
    if end is None:  # a token of the vocabulary, which is not found before everything else
        end = ControlToken(eos, backend.id_to_token(eos) or "", is_special=False)
    names = made.special_tokens_map
    return ChatTemplate(source, names, tokens, eos=end, stop_ids=stops, model=name)
