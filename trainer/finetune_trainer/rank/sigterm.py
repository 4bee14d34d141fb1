"""SIGTERM in a rank: during training a flag for the end of the step, before that an exception."""

import signal
from collections.abc import Callable
from types import FrameType

from finetune_trainer.errors import Preempted


class SigtermFlag:
    """Whether this process has received SIGTERM."""

    def __init__(self, is_training: Callable[[], bool]) -> None:
        self.is_set = False
        self._is_training = is_training

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        if not self._is_training():
            raise Preempted(0, None)
