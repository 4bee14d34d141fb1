"""Waits until the operator has served a Model, or has removed its server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetune_api.model import Model
from finetune_api.serving import ServingStatus
from finetune_cli.cluster.objects import read_model
from finetune_cli.cluster.resources import Resource
from finetune_cli.cluster.watching import Deleted, Disconnected, watch_object
from finetune_cli.commands.models.progress import Progress
from finetune_cli.commands.models.serving_change import PATIENCE_SECONDS, ServingChange
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import program_name

WAITING = "waiting for the operator"


@dataclass(frozen=True)
class Clock:
    """now: seconds of a clock that never goes back. pause: sleeps for a number of seconds."""

    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Reading:
    """A Model as read. seconds: since the start, or since the last lost connection."""

    model: Model
    seconds: float


def read_repeatedly(
    models: Resource, name: str, progress: Progress, clock: Clock
) -> Iterator[Reading]:
    """The Model every few seconds until it is deleted. Raises ApiError as `watch_object` does."""
    started = clock.now()
    for update in watch_object(models, name, may_watch=False, pause=clock.pause):
        if isinstance(update, Disconnected):
            progress.show_disconnected(update.reason)
            started = clock.now()
        elif isinstance(update, Deleted):
            return
        else:
            progress.show_connected()
            yield Reading(read_model(update.object), clock.now() - started)


def wait_until_served(
    readings: Iterator[Reading], change: ServingChange, progress: Progress, flags: str
) -> ServingStatus:
    """The first state that lasts: ready, asleep, or failed.

    flags: the cluster flags to repeat. Raises CommandError if the operator does not respond, or if
    another user stops serving the Model or deletes it.
    """
    model_id = "the model"
    for reading in readings:
        model, serving = reading.model, reading.model.status.serving
        model_id = model.spec.id
        if model.spec.serve is None:
            raise CommandError(
                f"another user removed spec.serve of {model_id}, so it is not served",
                f"`{program_name()} models list{flags}` shows which models are served",
            )
        if serving is None and reading.seconds >= PATIENCE_SECONDS:
            raise _no_operator(model_id, flags)
        if serving is None or not change.is_visible(serving.state, reading.seconds):
            progress.show(WAITING)
            continue
        progress.show(serving.message, serving.state)
        if serving.state != "loading":
            return serving
    raise CommandError(f"{model_id} was deleted, and its server with it")


def wait_until_stopped(
    readings: Iterator[Reading], progress: Progress, server: str, flags: str
) -> None:
    """Wait until the operator has removed the server, or the Model is deleted.

    server: the name of its objects. Raises CommandError if it is not removed.
    """
    for reading in readings:
        if reading.model.status.serving is None:
            return
        if reading.seconds >= PATIENCE_SECONDS:
            raise _not_removed(reading.model, server, flags)
        progress.show(WAITING)


def _no_operator(model_id: str, flags: str) -> CommandError:
    return CommandError(
        f"the operator does not serve {model_id}: its chart value serving.enabled is false, or it "
        "is not running",
        "ask an administrator for the chart value serving.enabled=true; "
        f"`{program_name()} doctor{flags}` checks whether the operator is running",
    )


def _not_removed(model: Model, server: str, flags: str) -> CommandError:
    if model.spec.serve is not None:
        return CommandError(f"another user set spec.serve of {model.spec.id} again")
    return CommandError(
        f"spec.serve of {model.spec.id} is removed, but the operator has not removed the server "
        f"{server} yet: it is not running, its chart value serving.enabled is false, or the API "
        "server refuses the deletion",
        f"`{program_name()} doctor{flags}` checks the operator. Without it, an administrator can "
        f"remove the objects: kubectl delete deployment,service,lease {server}{flags}",
    )
