"""`finetune keys revoke`: removes the entries of keys."""

from __future__ import annotations

import sys

import click

from finetune_api.api_keys import PREFIX, entry_name, hash_key, is_key
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.keys.key_secret import (
    KeyEntry,
    KeySecret,
    complete_ids,
    secret_option,
)
from finetune_cli.options import cluster_flags
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE, program_name

STDIN = "-"
LINE_BYTES = 4096  # of stdin: more than a key has
EFFECT = (
    "The gateway refuses a revoked key once the kubelet has updated the mounted Secret, usually "
    "within 60 seconds. To stop an account at once, delete its RoleBindings."
)


@click.command("revoke")
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_ids)
@secret_option
@cluster_flags
def revoke_keys(*, ids: tuple[str, ...], secret: str, target: ClusterTarget) -> None:
    """Revoke API keys.

    ID is an id from `keys list`, or - to read a key or an id from stdin, so that a leaked key
    does not become part of the shell's history.
    """
    wanted = list(dict.fromkeys(_id(text) for text in ids))
    keys, screen = KeySecret(connect(target), secret), Screen()
    known = {entry.id: entry for entry in keys.entries()}
    found = [known[key_id] for key_id in wanted if key_id in known]
    if found:
        keys.remove(entry.id for entry in found)
        for entry in found:
            screen.say(f"Revoked key {_described(entry)}.")
        screen.note(EFFECT)
    missing = [key_id for key_id in wanted if key_id not in known]
    if missing:
        shown = ", ".join(repr(key_id[:60]) for key_id in missing)
        raise CommandError(
            f"Secret {secret!r} of namespace {keys.namespace!r} has no key {shown}",
            f"`{program_name()} keys list{target.flags}` shows the ids of all keys",
        )


def _id(text: str) -> str:
    """The id of a key that is named by its id, by itself, or on stdin."""
    if text == STDIN:
        text = sys.stdin.buffer.readline(LINE_BYTES).decode("ascii", "replace").strip()
        if not text:
            raise CommandError(
                "stdin is empty", "write a key or an id to it, in one line", code=EXIT_USAGE
            )
    if is_key(text):
        return entry_name(hash_key(text))
    if text.startswith(PREFIX):  # it is not repeated: most of a key may be in it
        raise CommandError(
            f"a text that begins with {PREFIX} is not a whole key",
            "copy the key again, or use its id",
            code=EXIT_USAGE,
        )
    return text


def _described(entry: KeyEntry) -> str:
    if entry.record is None:
        return f"{entry.id} (unreadable)"
    note = f" ({entry.record.note})" if entry.record.note else ""
    return f"{entry.id} of ServiceAccount {entry.record.account!r}{note}"
