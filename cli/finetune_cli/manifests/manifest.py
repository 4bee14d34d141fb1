"""Builds the manifest from a file, the flags, and `--set`. Pure except for `read`."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.names import API_VERSION
from finetune_api.wire import JsonObject
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE
from finetune_data.read.findings import detail, shown

LARGEST_FILE = 1024 * 1024  # bytes; larger than any object that etcd accepts
KEPT_METADATA = ("name", "generateName", "namespace", "labels", "annotations")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NAME_CHARACTERS = 63
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_OTHER = re.compile(r"[^a-z0-9]+")


def read(source: str) -> JsonObject:
    """The FineTune in a file or, for `-`, stdin, without the fields that the server sets."""
    text = _text(source)
    documents = [found for found in parse(text, source) if found is not None]
    if len(documents) != 1:
        raise _wrong(
            f"{source} contains {len(documents)} objects; exactly one is required",
            "split the file, or use `kubectl create -f` for several objects",
        )
    return clean(documents[0], source)


def parse(text: str, source: str) -> list[Any]:
    """Parse YAML or JSON documents. A duplicate key is an error, as for the API server."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in seen:
                    line = key.start_mark.line + 1
                    raise _wrong(
                        f"{source}, line {line}: duplicate key {shown(str(key.value))}",
                        "remove one of the two",
                    )
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        return list(yaml.load_all(text, Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _wrong(
            f"{source}{where}: invalid YAML: {error.problem or 'unexpected end'}"
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise _wrong(f"{source} is not valid YAML: {detail(error)}") from error


def clean(found: Any, source: str) -> JsonObject:
    """Check kind and version; keep only the metadata and spec that users write."""
    if not isinstance(found, dict):
        raise _wrong(
            f"{source} contains no object", "start the file with `apiVersion:` and `kind:`"
        )
    kind = (found.get("apiVersion"), found.get("kind"))
    if kind != (API_VERSION, "FineTune"):
        raise _wrong(
            f"{source} is not a FineTune: apiVersion {kind[0]!r:.60}, kind {kind[1]!r:.60}",
            f"set `apiVersion: {API_VERSION}` and `kind: FineTune`",
        )
    unknown = set(found) - {"apiVersion", "kind", "metadata", "spec", "status"}
    if unknown:
        raise _wrong(f"{source}: unknown field {shown(str(min(unknown, key=str)))}")
    metadata, spec = found.get("metadata"), found.get("spec")
    for name, value in (("metadata", metadata), ("spec", spec)):
        if not isinstance(value, dict | None):
            raise _wrong(f"{source}: {name} must be a map")
    kept = {key: (metadata or {})[key] for key in KEPT_METADATA if key in (metadata or {})}
    if isinstance(kept.get("annotations"), dict):
        kept["annotations"] = {k: v for k, v in kept["annotations"].items() if k != LAST_APPLIED}
        if not kept["annotations"]:
            del kept["annotations"]
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTune",
        "metadata": kept,
        "spec": dict(spec or {}),
    }


def empty() -> JsonObject:
    return {"apiVersion": API_VERSION, "kind": "FineTune", "metadata": {}, "spec": {}}


def with_values(manifest: JsonObject, values: Sequence[tuple[str, Any]]) -> JsonObject:
    """A copy with each `a.b.c` of the spec set; missing maps are created."""
    changed = copy.deepcopy(manifest)
    for path, value in values:
        parent = changed["spec"]
        *folders, last = path.split(".")
        for folder in folders:
            parent = parent.setdefault(folder, {})
            if not isinstance(parent, dict):
                raise _wrong(f"--set {path}: {folder} is a value and has no fields")
        parent[last] = value
    return changed


def settings(texts: Sequence[str]) -> list[tuple[str, Any]]:
    """Split `hyperparameters.seed=7` into a path and a value; the value is parsed as YAML."""
    found = []
    for text in texts:
        path, equals, written = text.partition("=")
        path = path.removeprefix("spec.")
        if not equals or not all(path.split(".")):
            raise _wrong(f"--set {text!r:.80} must have the form hyperparameters.seed=7")
        value = parse(written, f"--set {path}")
        found.append((path, value[0] if value else None))
    return found


def named(manifest: JsonObject, name: str | None) -> JsonObject:
    """A copy with the requested name, the name in the file, or a prefix for a generated name."""
    changed = copy.deepcopy(manifest)
    metadata = changed["metadata"]
    if name:
        metadata.pop("generateName", None)
        metadata["name"] = name
    if "name" not in metadata and "generateName" not in metadata:
        metadata["generateName"] = f"{_stem(manifest['spec'])}-"
    written = metadata.get("name")
    if written is not None and not is_name(written):
        raise _wrong(
            f"{written!r:.80} is not a valid name: use lowercase letters, digits, dashes, and "
            f"dots, at most {NAME_CHARACTERS} characters",
            f"for example {slug(str(written))!r}" if slug(str(written)) else "",
        )
    return changed


def is_name(text: object) -> bool:
    return (
        isinstance(text, str) and len(text) <= NAME_CHARACTERS and _NAME.fullmatch(text) is not None
    )


def slug(text: str) -> str:
    """Lowercase with dashes for all other characters: `support-tone` from `Support tone!`."""
    return _OTHER.sub("-", text.lower()).strip("-")[:NAME_CHARACTERS].strip("-")


def _stem(spec: JsonObject) -> str:
    """A name from the suffix or the training file; the server appends five characters."""
    files = spec.get("trainingFiles")
    first = files[0] if isinstance(files, list) and files else None
    address = first.get("uri") if isinstance(first, dict) else spec.get("trainingFile", "")
    for source in (spec.get("suffix"), Path(str(address)).name):
        found = slug(str(source or "").partition(".")[0])[:40].strip("-")
        if found:
            return found
    return "fine-tune"


def _text(source: str) -> str:
    try:
        if source == "-":
            data = sys.stdin.buffer.read(LARGEST_FILE + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise _wrong(f"{source} is larger than 1 MiB, the maximum size of a manifest")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise _wrong(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(f"{source} is not UTF-8 (byte {error.start})") from error


def _wrong(message: str, hint: str = "") -> CommandError:
    return CommandError(message, hint, code=EXIT_USAGE)
