"""The doctor's look at S3 from this machine: may files be put where `create` puts them?"""

from __future__ import annotations

import secrets

from finetune_cli.artifacts.s3 import open_storage
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.manifests.uploads import parse_prefix
from finetune_cli.terminal.configuration import upload_prefix
from finetune_cli.terminal.errors import CommandError, describe_error
from finetune_storage.errors import StorageError

WHAT = "S3 from here"


def storage_finding(upload_to: str | None = None) -> Finding:
    """Writes, reads and deletes one small object below the prefix of uploads."""
    prefix = upload_to or upload_prefix()
    if not prefix:
        return Finding(
            "warning",
            WHAT,
            "no place for local files is known; files that lie in S3 already need none",
            "say it once with `create --upload-to s3://bucket/prefix`",
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
        return Finding("error", WHAT, report.message, report.hint)
    return Finding("ok", WHAT, f"{prefix} can be written and read")
