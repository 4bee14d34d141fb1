"""`finetune keys create`: a key for a ServiceAccount, which is printed once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from finetune_api.api_keys import PREFIX, KeyRecord, hash_key, new_key
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.errors import UnreachableError
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.keys.accounts import account_name, check_account, complete_accounts
from finetune_cli.commands.keys.key_secret import KeySecret, secret_option
from finetune_cli.options import cluster_flags
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import local_time
from finetune_cli.terminal.output import show_document
from finetune_cli.terminal.program import program_name

NOTE_CHARACTERS = 200
LONGEST_DAYS = 3650
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LIFETIME = re.compile(r"([0-9]{1,7})([mhdw])")


def lifetime(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    """The time in `90d`. Raises click.BadParameter."""
    if text is None:
        return None
    found = _LIFETIME.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(
            f"{text!r:.40} must be a number with a unit: m, h, d, or w, such as 90d"
        )
    made = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if made.days > LONGEST_DAYS:
        raise click.BadParameter(f"{text} is longer than {LONGEST_DAYS} days; omit --expires")
    return made


def short_note(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """The note. Raises click.BadParameter if no record can have it."""
    if text is None:
        return None
    if len(text) > NOTE_CHARACTERS:
        raise click.BadParameter(
            f"it has {len(text)} characters, and it may have at most {NOTE_CHARACTERS}"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("it is not valid UTF-8") from error
    return text


@click.command("create")
@click.option(
    "--for",
    "account",
    required=True,
    metavar="ACCOUNT",
    callback=account_name,
    shell_complete=complete_accounts,
    help="ServiceAccount whose permissions the key has.",
)
@click.option(
    "--expires",
    "expires_in",
    metavar="TIME",
    callback=lifetime,
    help="Time after which the key expires, such as 12h, 90d, or 8w.  [default: never]",
)
@click.option(
    "--note",
    metavar="TEXT",
    callback=short_note,
    help=f"Remark for `keys list`, such as the owner; at most {NOTE_CHARACTERS} characters.",
)
@secret_option
@cluster_flags
def create_key(
    *,
    account: str,
    expires_in: timedelta | None,
    note: str | None,
    secret: str,
    target: ClusterTarget,
) -> None:
    """Create an API key for a ServiceAccount, and print it once.

    The key goes to stdout, and everything else to stderr. The cluster stores only its hash.

    \b
      finetune keys create --for bert --expires 90d --note "bert's laptop"
      export OPENAI_API_KEY="$(finetune keys create --for anna)"
    """
    cluster, screen = connect(target), Screen()
    warnings = check_account(cluster, account)
    now = datetime.now(UTC)
    key = new_key()
    record = KeyRecord(
        sha256=hash_key(key),
        account=account,
        created=now,
        expires=now + expires_in if expires_in else None,
        note=note or None,
    )
    revoke = f"{program_name()} keys revoke {record.entry_name}{target.flags}"
    try:
        KeySecret(cluster, secret).add(record)
    except UnreachableError as error:  # the request may have been carried out
        hint = f"try again; `{revoke}` removes what this command may have created"
        raise CommandError(error.message, hint) from error
    for warning in warnings:
        screen.note(f"warning: {warning}", color="yellow")
    end = f"It expires {local_time(record.expires.isoformat())}." if record.expires else ""
    screen.note(
        f"Created key {record.entry_name} for ServiceAccount {account!r} in namespace "
        f"{cluster.namespace!r}. {end}".rstrip()
    )
    screen.note(
        "The key is shown only once. Its user sets two variables, with your gateway's address:"
    )
    screen.note(f"  export OPENAI_API_KEY={PREFIX}...")
    screen.note("  export OPENAI_BASE_URL=https://.../v1")
    screen.note(f"Revoke it: {revoke}")
    show_document(key)
