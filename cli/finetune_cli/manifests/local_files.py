"""The fields of a manifest that may name local files instead of S3 addresses."""

from __future__ import annotations

from pathlib import Path

from finetune_api.wire import JsonObject
from finetune_cli.manifests import manifest
from finetune_cli.manifests.uploads import is_local

FILE_FIELDS = ("trainingFile", "validationFile")
PLACEHOLDER_URI = "s3://bucket/key"  # for the checks, before a file has an address


def local_files(whole: JsonObject) -> dict[str, str]:
    """The local path of each field that names a file on this machine."""
    spec = whole["spec"]
    return {field: spec[field] for field in FILE_FIELDS if is_local(spec.get(field))}


def with_full_paths(whole: JsonObject, folder: Path) -> JsonObject:
    """A copy with local files relative to the folder of the manifest, not the current folder."""
    paths = local_files(whole).items()
    full = [(field, str(folder / Path(path).expanduser())) for field, path in paths]
    return manifest.with_values(whole, full)


def spec_with_placeholders(whole: JsonObject) -> JsonObject:
    """The spec with a valid S3 address for each local file, for the checks."""
    placeholders = dict.fromkeys(local_files(whole), PLACEHOLDER_URI)
    return {**whole["spec"], **placeholders}
