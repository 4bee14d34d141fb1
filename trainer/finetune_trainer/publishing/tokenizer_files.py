"""The tokenizer of a published model: the base model's files, with the end that was learned."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.layout import MANIFEST
from finetune_data.models.base_models import CARD, CONFIG, SMALL_FILES, TEMPLATES, read_json
from finetune_data.tokenize.chats.source import DEFAULT, FILE, NO_DEFAULT, find_template
from finetune_data.tokenize.end_tokens import GENERATION
from finetune_data.tokenize.loading import SETTINGS, load_as_server

# Patterns of the files that are copied from the base model. The other files are written here.
TOKENIZER_FILES = tuple(
    name for name in SMALL_FILES if name not in {CONFIG, CARD, GENERATION, MANIFEST}
)
GENERIC = "PreTrainedTokenizerFast"  # the class that uses tokenizer.json as it is
SPECIAL = "special_tokens_map.json"
TEMPLATE_FILES = (FILE, "chat_template.json", f"{TEMPLATES}/*.jinja")
SAMPLES = ("a", " The quick brown fox: 12.5!\n", "  naïve\t東京\n\n")  # texts to compare
_USES_EOS = re.compile(r"\beos_token\b")


def write_tokenizer(base: Path, folder: Path, end: int) -> None:
    """Copy the files of the tokenizer and the chat templates, and let `end` be its end token.

    Servers that know no generation_config.json stop there. The base model's end token stays if a
    template writes `eos_token`, if padding is the new one, or if the tokenizer would change
    otherwise.
    """
    for pattern in TOKENIZER_FILES:
        for path in filter(Path.is_file, base.glob(pattern)):
            copy = folder / path.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    written = read_json(folder / SETTINGS)
    settings = {key: value for key, value in written.items() if key != "auto_map"}  # names code
    if settings != written:
        _write_json(folder / SETTINGS, settings)
    if _is_generic(load_as_server(base)) and not _is_loaded_as_generic(folder):
        settings["tokenizer_class"] = GENERIC
        _write_json(folder / SETTINGS, settings)
    _write_default(folder, settings)
    if not any(_USES_EOS.search(text) for text in _templates(folder, settings)):
        _set_end(folder, settings, end)


def _is_generic(tokenizer: Any) -> bool:
    from transformers import PreTrainedTokenizerFast

    return type(tokenizer) is PreTrainedTokenizerFast


def _is_loaded_as_generic(folder: Path) -> bool:
    try:
        return _is_generic(_load(folder))
    except Exception:  # of many types, for settings that transformers refuses
        return False


def _write_default(folder: Path, settings: dict[str, Any]) -> None:
    """Write the default template to a file if transformers would not find it otherwise.

    Next to further files, it does not read that in tokenizer_config.json, and a tokenizer never
    reads chat_template.json, which is for processors of images.
    """
    has_further = any((folder / TEMPLATES).glob("*.jinja"))
    defaults = (folder / FILE, folder / TEMPLATES / f"{DEFAULT}.jinja")
    is_found = settings.get("chat_template") and not has_further
    if is_found or any(path.is_file() for path in defaults):
        return
    source = find_template(folder, settings)
    if source and source.default != NO_DEFAULT:
        (folder / FILE).write_text(source.default, encoding="utf-8")


def _templates(folder: Path, settings: dict[str, Any]) -> Iterator[str]:
    """The texts of all templates; those in JSON as JSON."""
    for pattern in TEMPLATE_FILES:
        for path in filter(Path.is_file, folder.glob(pattern)):
            yield path.read_text(encoding="utf-8", errors="replace")
    yield json.dumps(settings.get("chat_template"))


def _set_end(folder: Path, settings: dict[str, Any], end: int) -> None:
    before = _load(folder)
    text = before.convert_ids_to_tokens(end)
    is_added = end in before.added_tokens_decoder  # another one would split texts differently
    if end in {before.eos_token_id, before.pad_token_id} or not is_added or not text:
        return
    special = read_json(folder / SPECIAL)
    files = {SETTINGS: settings} | ({SPECIAL: special} if special else {})
    for name, content in files.items():
        _write_json(folder / name, content | {"eos_token": text})
    samples = [*SAMPLES, *(f"{text}{sample}{text}" for sample in SAMPLES)]
    try:
        after = _load(folder)
        same = all(after(sample).input_ids == before(sample).input_ids for sample in samples)
        is_set = same and after.eos_token_id == end
    except Exception:  # of any type, for a tokenizer that cannot encode them
        is_set = False
    if not is_set:
        for name, content in files.items():
            _write_json(folder / name, content)


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(f"{json.dumps(value, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
