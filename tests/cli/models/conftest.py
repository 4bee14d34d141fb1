"""An API server of the test, and a clock without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from finetune_api.wire import JsonObject
from finetune_cli.commands.models import serve, stop
from finetune_cli.commands.models.waiting import Clock
from tests.cli.models.api import ModelsApi, served_models

Start = Callable[..., ModelsApi]
MOST_PAUSES = 100


class Time:
    """A clock that only a pause moves. interrupt_at: the pause that Ctrl-C ends, from 1."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pauses = 0
        self.interrupt_at = 0

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        if self.pauses == self.interrupt_at:
            raise KeyboardInterrupt
        if self.pauses > MOST_PAUSES:
            pytest.fail("the command waits without an end")
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.pause)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    for module in (serve, stop):
        monkeypatch.setattr(module, "Clock", time.clock)
    return time


@pytest.fixture
def start(home: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """An API server with these Models, to which the command line connects."""
    monkeypatch.setenv("KUBECONFIG", str(home / "kubeconfig"))
    with ExitStack() as stack:

        def make(*models: JsonObject, steps: Any = ()) -> ModelsApi:
            api = ModelsApi(*models)
            api.steps = [*steps]
            stack.enter_context(served_models(api, home / "kubeconfig"))
            return api

        yield make
