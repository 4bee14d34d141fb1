"""The upload step of `finetune create`: local files of the manifest become S3 addresses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune_api.wire import JsonObject
from finetune_cli.artifacts.s3 import open_storage
from finetune_cli.manifests import uploads
from finetune_cli.manifests.local_files import local_files, with_addresses
from finetune_cli.manifests.uploads import Upload
from finetune_cli.terminal.configuration import upload_prefix
from finetune_cli.terminal.console import Screen, file_line
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_INTERRUPTED, EXIT_USAGE


def plan_uploads(
    whole: JsonObject, upload_to: str | None, screen: Screen, *, reuse: bool
) -> tuple[JsonObject, list[Upload]]:
    """The manifest with S3 addresses, and the uploads to those addresses.

    reuse: use existing objects with the same content.
    """
    local = local_files(whole)
    if upload_to:
        uploads.parse_prefix(upload_to)
    if not local:
        return whole, []
    prefix = upload_to or upload_prefix()
    if not prefix:
        first = next(iter(local.values()))
        raise CommandError(
            f"{first} is a local file, which pods cannot read",
            "set the destination with --upload-to s3://bucket/prefix (saved for the next time)",
            code=EXIT_USAGE,
        )
    storage = open_storage()
    planned: dict[str, Upload] = {}
    for field, address in local.items():
        path = uploads.find_file(address, Path())
        with screen.transfer(f"hashing {path.name}") as progress:
            planned[field] = uploads.plan_upload(path, prefix, storage, progress, reuse=reuse)
    uploads.require_different_training_files(planned)
    addresses = {field: str(upload.uri) for field, upload in planned.items()}
    return with_addresses(whole, addresses), list(planned.values())


def send_uploads(planned: Sequence[Upload], screen: Screen) -> None:
    """Upload each file once. Raises CommandError after Ctrl-C."""
    sent: set[str] = set()
    try:
        for upload in planned:
            if upload.exists or str(upload.uri) in sent:
                screen.note(f"{upload.path.name} already exists: {upload.uri}")
                continue
            with screen.transfer(f"uploading {upload.path.name}") as progress:
                uploads.send_upload(upload, open_storage(), progress)
            sent.add(str(upload.uri))
            screen.note(f"Uploaded {file_line(upload.path.name, upload.size)}: {upload.uri}")
    except KeyboardInterrupt as interrupt:
        raise CommandError(
            "interrupted: no fine-tune was created", code=EXIT_INTERRUPTED
        ) from interrupt


def show_planned(planned: Sequence[Upload], screen: Screen) -> None:
    """Print the uploads that a dry run leaves out."""
    for upload in planned:
        verb = "already exists" if upload.exists else "would be uploaded to"
        screen.note(f"{file_line(upload.path.name, upload.size)} {verb}: {upload.uri}")
