"""Reads the files of a FineTune or a Model from S3 with the credentials of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.uris import S3Uri
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import program_name

if TYPE_CHECKING:
    from finetune_api.finetune import FineTune
    from finetune_api.layout import RunLayout
    from finetune_cli.cluster.target import ClusterTarget
    from finetune_storage.s3 import Storage


def open_storage() -> Storage:
    """A storage client with the AWS_* settings of this machine."""
    from finetune_storage import connect

    return connect.open_storage()


def require_training(finetune: FineTune, what: str, target: ClusterTarget) -> None:
    """Raise CommandError if the FineTune ended before its first step: `what` will never exist."""
    meta, status = finetune.metadata, finetune.status
    if status.state not in {"failed", "cancelled"} or (status.progress and status.progress.step):
        return
    verb = "failed" if status.state == "failed" else "was cancelled"
    raise CommandError(
        f"fine-tune {meta.name} {verb} before its first training step, so it has no {what}",
        f"`{program_name()} get {meta.name}{target.flags}` shows the cause",
    )


def layout_of(finetune: FineTune) -> RunLayout:
    """The location of its files. Raises CommandError before the operator has set it.

    They may be those of a former FineTune, after an adoption or a move to another cluster.
    """
    from finetune_api.layout import RunLayout

    meta, resolved = finetune.metadata, finetune.status.resolved
    if finetune.status.model_uri is not None:
        model = parse_address(finetune.status.model_uri)
        return RunLayout(S3Uri(model.bucket, model.key.removesuffix("/model")))
    if resolved is None:
        raise CommandError(
            f"fine-tune {meta.name!r} ({finetune.status.state or 'pending'}) has no files in S3 yet"
        )
    return RunLayout.of(resolved.output, meta.namespace, meta.name, meta.uid)


def parse_address(text: str) -> S3Uri:
    """Parse an address of a status, which the operator wrote."""
    try:
        return S3Uri.parse(text)
    except ValueError as error:
        raise CommandError(f"the status contains an invalid S3 address: {error}") from error


def write_new(path: Path, data: bytes) -> None:
    """Write a file atomically, without replacing an existing one."""
    if path.exists():
        raise CommandError(f"{path} already exists", "remove it, or choose another name")
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
