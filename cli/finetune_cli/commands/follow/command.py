"""`finetune follow`, and the last step of `finetune create`."""

from __future__ import annotations

from typing import Any

import click

from finetune_api.names import TERMINAL_STATES, State
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.objects import read_finetune
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.cluster.watching import Deleted, Disconnected, watch_object
from finetune_cli.commands.follow.display import Display
from finetune_cli.commands.follow.ending import ending_lines, interrupt_lines
from finetune_cli.commands.follow.event_history import EventHistory
from finetune_cli.options import cluster_flags, name_argument, output_flag
from finetune_cli.terminal.console import Screen, to_json, to_yaml
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.output import show_document
from finetune_cli.terminal.program import EXIT_INTERRUPTED, EXIT_NOT_SUCCEEDED, program_name


@click.command()
@name_argument
@output_flag
@cluster_flags
def command(*, name: str, output: str | None, target: ClusterTarget) -> None:
    """Show the events and progress of a fine-tune until it ends.

    Ctrl-C stops following; the fine-tune continues. A lost connection is retried indefinitely.
    With -o json, the command prints the status as one line of JSON each time it changes.
    """
    cluster = connect(target)
    if output:
        raise SystemExit(_stream(cluster, name, output))
    raise SystemExit(follow(cluster, name, target))


def follow(cluster: Cluster, name: str, target: ClusterTarget) -> int:
    """Show a FineTune until it ends; returns the exit code. Raises CommandError on deletion."""
    screen, history = Screen(), EventHistory()
    try:
        with Display(screen) as display:
            for update in watch_object(cluster.finetunes, name):
                if isinstance(update, Disconnected):
                    display.show_disconnected(update.reason)
                    continue
                if isinstance(update, Deleted):
                    raise _deleted(name)
                finetune = read_finetune(update.object)
                for event in history.new_events(finetune.status.events):
                    display.show_event(event)
                if finetune.status.state in TERMINAL_STATES:
                    break
                display.show_status(finetune.status)
    except KeyboardInterrupt:
        screen.note()
        for line in interrupt_lines(name, program_name(), target.flags):
            screen.note(line)
        return EXIT_INTERRUPTED
    for text, color in ending_lines(finetune, program_name(), target.flags):
        start, hint, rest = text.partition("hint: ")
        if hint and not start:
            screen.hanging(hint, rest, color)
        else:
            screen.say(text, color)
    return 0 if finetune.status.state == State.SUCCEEDED else EXIT_NOT_SUCCEEDED


def _stream(cluster: Cluster, name: str, output: str) -> int:
    """Print the status for programs each time it changes; returns the exit code."""
    previous: Any = None
    for update in watch_object(cluster.finetunes, name):
        if isinstance(update, Deleted):
            raise _deleted(name)
        if isinstance(update, Disconnected):
            Screen().note(f"reconnecting: {update.reason}")
            continue
        status = update.object.get("status") or {}
        if status != previous:
            is_json = output == "json"
            show_document(to_json(status) if is_json else f"---\n{to_yaml(status).rstrip()}")
        previous = status
        if status.get("state") in TERMINAL_STATES:
            return 0 if status["state"] == State.SUCCEEDED else EXIT_NOT_SUCCEEDED
    raise _deleted(name)


def _deleted(name: str) -> CommandError:
    return CommandError(
        f"fine-tune {name!r} was deleted while you followed it",
        f"its files are still in S3; `{program_name()} list` shows the remaining fine-tunes",
    )
