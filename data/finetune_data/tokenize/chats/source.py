"""Finds the chat templates of a base model, where transformers looks for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetune_data.models.base_models import TEMPLATES, read_json

FILE = "chat_template.jinja"
DEFAULT, TOOL_USE = "default", "tool_use"
# transformers, too, renders nothing if a model has several templates and none of this name.
NO_DEFAULT = "{{ raise_exception('none of the chat templates of the model is the default') }}"


class TemplateSource(NamedTuple):
    """Jinja templates. `tools` is for conversations with tools, if the model has two templates."""

    default: str
    tools: str = ""


def find_template(folder: Path, settings: Mapping[str, Any]) -> TemplateSource | None:
    """The templates that transformers' `get_chat_template` chooses; None if the model has none.

    Templates in files replace all those in tokenizer_config.json, except that its default remains
    if no file is the default; the published model then has a file for it. settings: the content of
    tokenizer_config.json. Raises ValueError, which names the file.
    """
    named = _files(folder)
    if DEFAULT not in named:
        written = _named(folder, settings)
        named = {DEFAULT: written.get(DEFAULT, ""), **named} if named else written
    found = {name: text for name, text in named.items() if text}
    return (
        TemplateSource(found.get(DEFAULT, NO_DEFAULT), found.get(TOOL_USE, "")) if found else None
    )


def _files(folder: Path) -> dict[str, str]:
    files = {DEFAULT: folder / FILE}
    files |= {path.stem: path for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    texts = {
        name: path.read_text(encoding="utf-8", errors="replace")
        for name, path in files.items()
        if path.is_file()
    }
    return {name: text for name, text in texts.items() if text}


def _named(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    found = settings.get("chat_template")
    if found is None:
        found = read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(found, str):
        return {DEFAULT: found} if found else {}
    if isinstance(found, dict):
        found = [{"name": name, "template": text} for name, text in found.items()]
    return {
        item["name"]: item["template"]
        for item in (found if isinstance(found, list) else [])
        if isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and isinstance(item.get("template"), str)
        and item["template"]
    }
