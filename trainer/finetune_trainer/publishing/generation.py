"""Lets a published model stop: generation_config.json and config.json name its end tokens.

The base model's settings of generation stay, except those that forbid the model to stop where it
has learned to, and those that no server accepts.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from finetune_data.models.base_models import CONFIG, read_json
from finetune_data.models.configuration import chooses_code
from finetune_data.tokenize.end_tokens import GENERATION, valid_tokens, vocabulary_size

# They forbid the end for a number of tokens, which suited what the base model was made for.
SHORTEST = ("min_length", "min_new_tokens")
# They replace tokens that a decoder has produced for the input of an encoder.
FORCED = ("forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id")
POSITIVE = ("max_length", "max_new_tokens", "num_beams", "num_return_sequences")
FROM_CONFIG = ("bos_token_id", "pad_token_id")


def write_end_tokens(base: Path, folder: Path, ends: Sequence[int]) -> None:
    """Write the end tokens into the configurations of the published model in `folder`.

    base: the folder of the base model. ends: the first one is what the model has learned.
    """
    vocabulary = vocabulary_size(folder)
    value = ends[0] if len(ends) == 1 else list(ends)
    config = read_json(folder / CONFIG)
    known = {name: config[name] for name in FROM_CONFIG if name in config}
    for settings in (_settings(base) or known, known):
        kept = generation_settings(settings, ends, vocabulary)
        _write_json(folder / GENERATION, kept | {"eos_token_id": value})
        if _is_readable(folder):
            break
    parts = [config, config.get("text_config")]
    for part in parts:
        if isinstance(part, dict) and (part is config or "eos_token_id" in part):
            part["eos_token_id"] = value
    config.pop("auto_map", None)  # names Python files, which are not published
    _write_json(folder / CONFIG, config)
    if isinstance(value, list) and not _is_accepted(folder):  # few classes permit only a number
        for part in parts:
            if isinstance(part, dict) and part.get("eos_token_id") == value:
                part["eos_token_id"] = ends[0]
        _write_json(folder / CONFIG, config)


def generation_settings(
    settings: dict[str, Any], ends: Collection[int], vocabulary: int | None
) -> dict[str, Any]:
    """The settings of generation_config.json without those that are invalid or forbid an end."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        kept = value
        if name in {*SHORTEST, *FORCED, "_from_model_config"} or chooses_code(name, value):
            continue
        if name in POSITIVE:
            kept = value if _is_positive(value) else None
        elif name.endswith("_token_id"):
            tokens = valid_tokens(value, vocabulary)
            kept = (tokens if isinstance(value, list) else tokens[0]) if tokens else None
        elif name.endswith("suppress_tokens"):
            kept = [token for token in valid_tokens(value, vocabulary) if token not in ends]
        elif name in {"bad_words_ids", "sequence_bias", "force_words_ids"}:
            kept = _without_ends(value, ends)
        if kept is not None and (kept != [] or value == []):
            found[name] = kept
    return found


def _without_ends(value: object, ends: Collection[int]) -> list[Any]:
    """The entries of a list that mention no end token: lists of tokens, or of these and a bias."""
    found = value if isinstance(value, list) else []
    return [entry for entry in found if not _tokens_in(entry) & set(ends)]


def _tokens_in(value: object) -> set[int]:
    if isinstance(value, list):
        return set().union(*map(_tokens_in, value))
    return {value} if isinstance(value, int) else set()


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _settings(base: Path) -> dict[str, Any] | None:
    """The base model's generation_config.json; None if there is none that can be read."""
    try:
        return read_json(base / GENERATION) or None
    except ValueError:
        return None


def _is_readable(folder: Path) -> bool:
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception:  # of its checks of values and types
        return False
    return True


def _is_accepted(folder: Path) -> bool:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # of huggingface_hub's checks of types
        return False
    return True


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
