"""Renders the reference of the chart's values: keys, defaults, and comments of values.yaml."""

import json
import re
from typing import Any

import yaml

from docs.generator.markdown import HEADER, code, sentence, table
from docs.generator.source import ROOT

VALUES = ROOT / "charts/finetune-operator/values.yaml"
HEAD = """# Chart values

You set these values with `--set`, `--set-json`, or `-f` of `helm install` and `helm upgrade`. The
schema of the chart rejects unknown names and wrong types.

"""
# Maps that are shown as a whole.
WHOLE = {"gateway.ingress.annotations", "gateway.resources", "operator.resources"}
KEY = re.compile(r"^(\s*)([A-Za-z][\w]*):")
SHOWN = 70  # characters of a default; a longer one is in values.yaml only


def pages() -> dict[str, str]:
    """Map each page to its text."""
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    words = comments(VALUES.read_text(encoding="utf-8"))
    rows = [
        [code(path), _default(value), sentence(words.get(path, ""))]
        for path, value in leaves(values)
    ]
    return {
        "reference/chart-values.md": HEADER
        + HEAD
        + table(["value", "default", "description"], rows)
    }


def leaves(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """List (dotted path, default). Lists and empty maps are leaves."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        path = f"{before}{key}"
        if isinstance(value, dict) and value and path not in WHOLE:
            found += leaves(value, f"{path}.")
        else:
            found.append((path, value))
    return found


def comments(text: str) -> dict[str, str]:
    """Map each dotted path to the comment above it, from the line that begins with `# --`."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            pending = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("# ---") or not stripped:
            pending = []
        elif stripped.startswith("# "):
            pending += [stripped.removeprefix("# ")] if pending else []
        elif matched := KEY.match(line):
            depth = len(matched[1])
            parents = [(level, name) for level, name in parents if level < depth]
            path = ".".join([*(name for _, name in parents), matched[2]])
            parents.append((depth, matched[2]))
            if pending:
                found[path] = " ".join(pending)
            pending = []
    return found


def _default(value: Any) -> str:
    if value in ("", {}, []):
        return ""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        return ", ".join(code(item["name"]) for item in value)
    if isinstance(value, str):
        return code(value)
    text = json.dumps(value)
    return code(text) if len(text) <= SHOWN else "see values.yaml"
