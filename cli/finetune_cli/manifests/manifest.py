"""The manifest that is sent: from a file, then the flags, then `--set`. Pure but for `read`."""

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

LARGEST_FILE = 1024 * 1024  # bytes; etcd takes no larger object
KEPT_METADATA = ("name", "generateName", "namespace", "labels", "annotations")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NAME_CHARACTERS = 63
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_OTHER = re.compile(r"[^a-z0-9]+")


def read(source: str) -> JsonObject:
    """The one FineTune in a file, `-` for stdin; what the server writes is left out."""
    text = _text(source)
    documents = [found for found in parse(text, source) if found is not None]
    if len(documents) != 1:
        raise _wrong(
            f"{source} holds {len(documents)} objects, and create makes one",
            "split it, or use `kubectl create -f` for several",
        )
    return clean(documents[0], source)


def parse(text: str, source: str) -> list[Any]:
    """YAML or JSON documents. A repeated key is an error, as it is to the API server."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in seen:
                    line = key.start_mark.line + 1
                    raise _wrong(
                        f"{source}, line {line}: the key {shown(str(key.value))} stands twice",
                        "remove one of the two",
                    )
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        return list(yaml.load_all(text, Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _wrong(f"{source}{where}: not YAML: {error.problem or 'it breaks off'}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise _wrong(f"{source} is not YAML: {detail(error)}") from error


def clean(found: Any, source: str) -> JsonObject:
    """Kind and version checked; metadata and spec as a person would write them."""
    if not isinstance(found, dict):
        raise _wrong(f"{source} holds no object", "it must begin with `apiVersion:` and `kind:`")
    kind = (found.get("apiVersion"), found.get("kind"))
    if kind != (API_VERSION, "FineTune"):
        raise _wrong(
            f"{source} is not a FineTune: apiVersion {kind[0]!r:.60}, kind {kind[1]!r:.60}",
            f"it must have `apiVersion: {API_VERSION}` and `kind: FineTune`",
        )
    unknown = set(found) - {"apiVersion", "kind", "metadata", "spec", "status"}
    if unknown:
        raise _wrong(f"{source}: unknown field {shown(str(min(unknown, key=str)))}")
    metadata, spec = found.get("metadata"), found.get("spec")
    for name, value in (("metadata", metadata), ("spec", spec)):
        if not isinstance(value, dict | None):
            raise _wrong(f"{source}: {name} must be a map of names and values")
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
    """A copy with each `a.b.c` of the spec set; a map that is not there is made."""
    changed = copy.deepcopy(manifest)
    for path, value in values:
        place = changed["spec"]
        *folders, last = path.split(".")
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise _wrong(f"--set {path}: {folder} holds a value, not further fields")
        place[last] = value
    return changed


def settings(texts: Sequence[str]) -> list[tuple[str, Any]]:
    """`hyperparameters.seed=7` as path and value; the value is read as YAML."""
    found = []
    for text in texts:
        path, equals, written = text.partition("=")
        path = path.removeprefix("spec.")
        if not equals or not all(path.split(".")):
            raise _wrong(f"--set {text!r:.80} must be like hyperparameters.seed=7")
        value = parse(written, f"--set {path}")
        found.append((path, value[0] if value else None))
    return found


def named(manifest: JsonObject, name: str | None) -> JsonObject:
    """With the name that was asked for, the file's own, or one that the server makes up."""
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
            f"{written!r:.80} can't be a name: lower-case letters, digits, dashes and dots, "
            f"at most {NAME_CHARACTERS}",
            f"{slug(str(written))!r} would do" if slug(str(written)) else "",
        )
    return changed


def is_name(text: object) -> bool:
    return (
        isinstance(text, str) and len(text) <= NAME_CHARACTERS and _NAME.fullmatch(text) is not None
    )


def slug(text: str) -> str:
    """Lower case, anything else a dash: `support-tone` of `Support tone!`."""
    return _OTHER.sub("-", text.lower()).strip("-")[:NAME_CHARACTERS].strip("-")


def _stem(spec: JsonObject) -> str:
    """Of the suffix, else of the training file; short, since five characters follow."""
    for source in (spec.get("suffix"), Path(str(spec.get("trainingFile", ""))).name):
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
            raise _wrong(f"{source} is larger than 1 MiB, and no manifest is")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise _wrong(f"{source} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(f"{source} is not UTF-8 (byte {error.start})") from error


def _wrong(message: str, hint: str = "") -> CommandError:
    return CommandError(message, hint, code=EXIT_USAGE)
