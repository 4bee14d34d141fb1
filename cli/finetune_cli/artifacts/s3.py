"""What lies in S3 for a FineTune or a Model, fetched with the credentials of this machine."""

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
    """The client for this machine's AWS_* settings."""
    from finetune_storage import connect

    return connect.open_storage()


def require_training(finetune: FineTune, what: str, target: ClusterTarget) -> None:
    """Raises CommandError where it ended before a first step: there will never be such a file."""
    meta, status = finetune.metadata, finetune.status
    if status.state not in {"failed", "cancelled"} or (status.progress and status.progress.step):
        return
    verb = "failed" if status.state == "failed" else "was cancelled"
    raise CommandError(
        f"fine-tune {meta.name} {verb} before it trained: it has no {what}",
        f"`{program_name()} get {meta.name}{target.flags}` tells why",
    )


def layout_of(finetune: FineTune) -> RunLayout:
    """Where its files are. Raises CommandError before the operator has decided it."""
    from finetune_api.layout import RunLayout

    meta, resolved = finetune.metadata, finetune.status.resolved
    if resolved is None:
        raise CommandError(
            f"nothing of {meta.name!r} is in S3 yet: it is {finetune.status.state or 'pending'}"
        )
    return RunLayout.of(resolved.output, meta.namespace, meta.name, meta.uid)


def parse_address(text: str) -> S3Uri:
    """Of a status: written by the operator, checked all the same."""
    try:
        return S3Uri.parse(text)
    except ValueError as error:
        raise CommandError(f"the cluster names an address that is none: {error}") from error


def write_new(path: Path, data: bytes) -> None:
    """A file that appears whole and replaces nothing."""
    if path.exists():
        raise CommandError(f"{path} exists already", "remove it, or choose another name")
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
