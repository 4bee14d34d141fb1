"""`finetune cancel`, `suspend`, and `resume`: each patches one field of the spec."""

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
    """Add NAME..., and the alias `-i NAME` of OpenAI's command line."""
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
    """End fine-tunes permanently. Checkpoints and partial results are kept."""
    _steer(target, (*names, *old_names), output, {"cancel": True})


@click.command()
@_names
@output_flag
@cluster_flags
def suspend(
    *, names: tuple[str, ...], old_names: tuple[str, ...], output: str | None, target: ClusterTarget
) -> None:
    """Save a checkpoint and release the GPUs. `resume` continues from the checkpoint."""
    _steer(target, (*names, *old_names), output, {"suspend": True})


@click.command()
@_names
@output_flag
@cluster_flags
def resume(
    *, names: tuple[str, ...], old_names: tuple[str, ...], output: str | None, target: ClusterTarget
) -> None:
    """Continue suspended fine-tunes from their last checkpoint."""
    _steer(target, (*names, *old_names), output, {"suspend": False})


def _steer(
    target: ClusterTarget, names: tuple[str, ...], output: str | None, change: dict[str, bool]
) -> None:
    """Patch each fine-tune; a failure does not affect the others."""
    if not names:
        raise click.UsageError("missing NAME of a fine-tune; `list` shows all names")
    cluster, screen = connect(target), Screen()
    changed: list[JsonObject] = []
    code = 0
    for name in dict.fromkeys(names):
        try:
            patched, message = _change(cluster, name, change, target.flags)
        except CommandError as error:
            code = print_error(error)
            continue
        changed.append(patched)
        if not output:
            screen.say(message)
    if output and changed:
        show_objects(changed[0] if len(names) == 1 else as_list(changed), output)
    raise SystemExit(code)


def _change(
    cluster: Cluster, name: str, change: dict[str, bool], flags: str
) -> tuple[JsonObject, str]:
    """(the patched object, a message). Raises CommandError if the fine-tune has ended."""
    found = cluster.finetunes.get(name)
    spec, state = found["spec"], (found.get("status") or {}).get("state")
    if state in TERMINAL_STATES:
        if change.get("cancel") and state == State.CANCELLED:
            return found, f"{name} is already cancelled."
        verb = _verb(change)
        raise CommandError(
            f"cannot {verb} {name}: it has already {_past(state)}",
            f"`{program_name()} get {name}{flags}` shows its result",
        )
    if spec.get("cancel") and "cancel" not in change:
        raise CommandError(f"cannot {_verb(change)} {name}: it is being cancelled, which is final")
    if all(bool(spec.get(field)) == value for field, value in change.items()):
        return found, _unchanged(name, change)
    return cluster.finetunes.patch_spec(name, **change), _done(name, change, flags)


def _done(name: str, change: dict[str, bool], flags: str) -> str:
    if change.get("cancel"):
        return f"{name} is being cancelled. Its checkpoint and partial results are kept."
    if change["suspend"]:
        again = f"{program_name()} resume {name}{flags}"
        return f"{name} is being suspended after a checkpoint. Continue it: {again}"
    watch = f"{program_name()} follow {name}{flags}"
    return f"{name} continues from its last checkpoint. Follow it: {watch}"


def _unchanged(name: str, change: dict[str, bool]) -> str:
    if "cancel" in change:
        return f"{name} is already being cancelled."
    if change["suspend"]:
        return f"{name} is already suspended or being suspended."
    return f"{name} is not suspended."


def _verb(change: dict[str, bool]) -> str:
    if "cancel" in change:
        return "cancel"
    return "suspend" if change["suspend"] else "resume"


def _past(state: str) -> str:
    return {"failed": "failed", "succeeded": "succeeded"}.get(state, "been cancelled")
