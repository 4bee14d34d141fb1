"""The fields of a manifest that may name local files instead of S3 addresses."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_api.wire import JsonObject
from finetune_cli.manifests.uploads import is_local

PLACEHOLDER_URI = "s3://bucket/key"  # for the checks, before a file has an address


def local_files(whole: JsonObject) -> dict[str, str]:
    """The local path of each field that names a file on this machine.

    A field is `trainingFile`, `validationFile`, or `trainingFiles[0].uri`.
    """
    fields = _file_fields(whole["spec"])
    return {field: parent[key] for field, parent, key in fields if is_local(parent.get(key))}


def with_addresses(whole: JsonObject, addresses: Mapping[str, str]) -> JsonObject:
    """A copy with other addresses in the fields of `local_files`."""
    changed = copy.deepcopy(whole)
    for field, parent, key in _file_fields(changed["spec"]):
        parent[key] = addresses.get(field, parent.get(key))
    return changed


def with_full_paths(whole: JsonObject, folder: Path) -> JsonObject:
    """A copy with local files relative to the folder of the manifest, not the current folder."""
    paths = local_files(whole).items()
    full = {field: str(folder / Path(path).expanduser()) for field, path in paths}
    return with_addresses(whole, full)


def spec_with_placeholders(whole: JsonObject) -> JsonObject:
    """The spec with a valid S3 address for each local file, for the checks."""
    paths = local_files(whole)
    numbers = {path: number for number, path in enumerate(dict.fromkeys(paths.values()))}
    placeholders = {field: f"{PLACEHOLDER_URI}-{numbers[path]}" for field, path in paths.items()}
    spec: JsonObject = with_addresses(whole, placeholders)["spec"]
    return spec


def _file_fields(spec: JsonObject) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(field, the map that holds it, its key) of every data file; the values are not checked."""
    for key in ("trainingFile", "validationFile"):
        if key in spec:
            yield key, spec, key
    files = spec.get("trainingFiles")
    for index, file in enumerate(files if isinstance(files, list) else []):
        if isinstance(file, dict) and "uri" in file:
            yield f"trainingFiles[{index}].uri", file, "uri"
