"""Checks whether this machine can write to the S3 prefix that `create` uploads to."""

from __future__ import annotations

import secrets

from finetune_cli.artifacts.s3 import open_storage
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.manifests.uploads import parse_prefix
from finetune_cli.terminal.configuration import upload_prefix
from finetune_cli.terminal.errors import CommandError, describe_error
from finetune_storage.errors import StorageError

CHECK = "S3 access"


def storage_finding(upload_to: str | None = None) -> Finding:
    """Write, read, and delete a small object below the prefix for uploads."""
    prefix = upload_to or upload_prefix()
    if not prefix:
        return Finding(
            "warning",
            CHECK,
            "no upload destination is set; it is needed only for local files",
            "set it once with `create --upload-to s3://bucket/prefix`",
        )
    try:
        probe = parse_prefix(prefix).child(f"doctor-{secrets.token_hex(8)}")
        storage = open_storage()
        storage.write_bytes(probe, b"written by finetune doctor\n")
        try:
            storage.read_bytes(probe)
        finally:
            storage.delete(probe)
    except (StorageError, CommandError) as error:
        report = describe_error(error)
        return Finding("error", CHECK, report.message, report.hint)
    return Finding("ok", CHECK, f"{prefix} is readable and writable")
