"""`finetune keys list`: one line for each key, without its hash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.keys.key_secret import KeyEntry, KeySecret, secret_option
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.format import local_time
from finetune_cli.terminal.program import program_name

HEADINGS = ("ID", "ACCOUNT", "CREATED", "EXPIRES", "NOTE")


@click.command("list")
@output_flag
@secret_option
@cluster_flags
def list_keys(*, output: str | None, secret: str, target: ClusterTarget) -> None:
    """List the API keys in a namespace, oldest first. Keys and hashes are never shown."""
    keys = KeySecret(connect(target), secret)
    entries, now, screen = keys.entries(), datetime.now(UTC), Screen()
    if output:
        show_objects([to_object(entry, now) for entry in entries], output)
    elif entries:
        screen.table(HEADINGS, [row(entry, now) for entry in entries], elastic="NOTE")
    else:
        create = f"{program_name()} keys create --for ACCOUNT{target.flags}"
        where = f"Secret {secret!r} of namespace {keys.namespace!r}"
        screen.note(f"No API keys found in {where}. Create one: {create}")
    _note_unreadable(screen, entries)


def row(entry: KeyEntry, now: datetime) -> tuple[str, ...]:
    record = entry.record
    if record is None:
        return entry.id, "", "", "", f"unreadable: {entry.problem}"
    expires = local_time(record.expires.isoformat()) if record.expires else "never"
    return (
        entry.id,
        record.account,
        local_time(record.created.isoformat()),
        f"{expires} (expired)" if record.is_expired(now) else expires,
        record.note or "",
    )


def to_object(entry: KeyEntry, now: datetime) -> JsonObject:
    """The entry for programs."""
    if entry.record is None:
        return {"id": entry.id, "problem": entry.problem}
    fields = entry.record.to_dict()
    del fields["sha256"]
    return {"id": entry.id, **fields, "expired": entry.record.is_expired(now)}


def _note_unreadable(screen: Screen, entries: Sequence[KeyEntry]) -> None:
    count = sum(entry.record is None for entry in entries)
    if count:
        noun = "entry" if count == 1 else "entries"
        screen.note(f"The gateway ignores {count} unreadable {noun}. Revoke them by their ids.")
