"""SIGTERM in a worker: while it trains a note for the end of the step, before that the end."""

import signal
from collections.abc import Callable
from types import FrameType

from finetune_trainer.errors import Preempted


class SigtermFlag:
    """Whether this process was asked to stop."""

    def __init__(self, is_training: Callable[[], bool]) -> None:
        self.is_asked = False
        self._is_training = is_training

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        if not self._is_training():
            raise Preempted(0, None)
