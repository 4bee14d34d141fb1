"""The doctor's look at S3 from this machine: may files be put where `create` puts them?"""

from __future__ import annotations

import secrets

from finetune_cli.artifacts.s3 import CREDENTIALS, open_storage
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.manifests.uploads import parse_prefix
from finetune_cli.terminal.configuration import upload_prefix
from finetune_cli.terminal.errors import CommandError, explain
from finetune_storage.failures import StorageError

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
        complaint = explain(error)
        is_told = "AWS_" in complaint.message
        return Finding(
            "error", WHAT, complaint.message, complaint.hint or ("" if is_told else CREDENTIALS)
        )
    return Finding("ok", WHAT, f"{prefix} can be written and read")
