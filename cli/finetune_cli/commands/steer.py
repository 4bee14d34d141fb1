"""`finetune cancel`, `suspend` and `resume`: each a merge patch of one field."""

from __future__ import annotations

from typing import Any

import click

from finetune_api.names import TERMINAL_STATES, State
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, complete_names, output_flag
from finetune_cli.terminal.console import Screen, as_list, show_objects
from finetune_cli.terminal.errors import CommandError, print_error
from finetune_cli.terminal.program import program_name


def _names(function: Any) -> Any:
    """NAME..., and the old tool's `-i NAME`."""
    names = click.argument("names", nargs=-1, metavar="NAME...", shell_complete=complete_names)
    old = click.option("-i", "--id", "old_names", multiple=True, hidden=True)
    return names(old(function))


@click.command()
@_names
@output_flag
@cluster_flags
def cancel(
    *, names: tuple[str, ...], old_names: tuple[str, ...], output: str | None, target: ClusterTarget
) -> None:
    """End fine-tunes for good. Checkpoints and partial results are kept."""
    _steer(target, (*names, *old_names), output, {"cancel": True})


@click.command()
@_names
@output_flag
@cluster_flags
def suspend(
    *, names: tuple[str, ...], old_names: tuple[str, ...], output: str | None, target: ClusterTarget
) -> None:
    """Free the GPUs after a checkpoint; `resume` goes on from there."""
    _steer(target, (*names, *old_names), output, {"suspend": True})


@click.command()
@_names
@output_flag
@cluster_flags
def resume(
    *, names: tuple[str, ...], old_names: tuple[str, ...], output: str | None, target: ClusterTarget
) -> None:
    """Go on with suspended fine-tunes, from their last checkpoint."""
    _steer(target, (*names, *old_names), output, {"suspend": False})


def _steer(
    target: ClusterTarget, names: tuple[str, ...], output: str | None, change: dict[str, bool]
) -> None:
    """Each name in turn; one that can't be changed does not keep the others from it."""
    if not names:
        raise click.UsageError("say which fine-tune: NAME is missing (`list` shows all)")
    cluster, screen = connect(target), Screen()
    changed: list[JsonObject] = []
    code = 0
    for name in dict.fromkeys(names):
        try:
            found, words = _change(cluster, name, change, target.flags)
        except CommandError as error:
            code = print_error(error)
            continue
        changed.append(found)
        if not output:
            screen.say(words)
    if output and changed:
        show_objects(changed[0] if len(names) == 1 else as_list(changed), output)
    raise SystemExit(code)


def _change(
    cluster: Cluster, name: str, change: dict[str, bool], flags: str
) -> tuple[JsonObject, str]:
    """The object after the patch, and what to say. Raises CommandError where it is too late."""
    found = cluster.finetunes.get(name)
    spec, state = found["spec"], (found.get("status") or {}).get("state")
    if state in TERMINAL_STATES:
        if change.get("cancel") and state == State.CANCELLED:
            return found, f"{name} is cancelled already."
        verb = _verb(change)
        raise CommandError(
            f"{name} has {_past(state)} already: there is nothing to {verb}",
            f"`{program_name()} get {name}{flags}` shows what came out",
        )
    if spec.get("cancel") and "cancel" not in change:
        raise CommandError(
            f"{name} is being cancelled, which is final: it does not {_verb(change)}"
        )
    if all(bool(spec.get(field)) == value for field, value in change.items()):
        return found, f"{name}: {_verb(change)} was asked for already, or never needed."
    return cluster.finetunes.patch_spec(name, **change), _done(name, change, flags)


def _done(name: str, change: dict[str, bool], flags: str) -> str:
    if change.get("cancel"):
        return f"{name} is being cancelled; its checkpoint and partial results are kept."
    if change["suspend"]:
        again = f"{program_name()} resume {name}{flags}"
        return f"{name} is suspended after a checkpoint. To go on: {again}"
    return (
        f"{name} goes on from its last checkpoint. To watch: {program_name()} follow {name}{flags}"
    )


def _verb(change: dict[str, bool]) -> str:
    if "cancel" in change:
        return "cancel"
    return "suspend" if change["suspend"] else "resume"


def _past(state: str) -> str:
    return {"failed": "failed", "succeeded": "succeeded"}.get(state, "been cancelled")
