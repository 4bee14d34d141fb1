"""Checks the S3 prefix that `create` uploads to, and what its store can do."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

from finetune_cli.artifacts.s3 import open_storage
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.commands.doctor.network_checks import (
    bundle_findings,
    named_bundles,
    proxy_findings,
)
from finetune_cli.manifests.uploads import parse_prefix
from finetune_cli.terminal.configuration import upload_prefix
from finetune_cli.terminal.errors import CommandError, describe_error
from finetune_storage.errors import StorageError

CHECK = "S3 access"
STORE_CHECK = "S3 store"


def storage_findings(upload_to: str | None = None) -> Iterator[Finding]:
    """Write, read, and delete a small object below the prefix for uploads.

    A part of S3 that the store lacks is a warning: everything works there, if more weakly.
    """
    yield from bundle_findings(named_bundles(), datetime.now(UTC))
    prefix = upload_to or upload_prefix()
    if not prefix:
        yield Finding(
            "warning",
            CHECK,
            "no upload destination is set; it is needed only for local files",
            "set it once with `create --upload-to s3://bucket/prefix`",
        )
        return
    try:
        from finetune_storage.probe import find_weaknesses

        probe = parse_prefix(prefix).child(f"doctor-{secrets.token_hex(8)}")
        storage = open_storage()
        yield from proxy_findings(storage.endpoint)
        weaknesses = find_weaknesses(storage, probe)
    except (StorageError, CommandError) as error:
        report = describe_error(error)
        yield Finding("error", CHECK, report.message, report.hint)
        return
    yield Finding("ok", CHECK, f"{prefix} is readable and writable")
    for weakness in weaknesses:
        yield Finding("warning", STORE_CHECK, weakness.problem, weakness.remedy)
