"""The forward passes that the sample completions may take: less than 1 % of the run. Pure.

In ZeRO 3, every forward pass gathers all weights. Over slow links, 64 passes before and after a
training of a large model would take tens of minutes.

The number of passes is counted, not measured: a micro-batch of the training takes as long as three
forward passes (its own, and a backward pass of twice the work), which gather as many weights as a
pass of the samples. The count is the same on all ranks and in every attempt. A short run would then
have no samples, although they take a second on fast links. Therefore, a few seconds are allowed in
any case, which rank 0 measures.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

SHARE = 0.01  # of the run, for all completions before and after the training
TIMES = 2  # before and after
PASSES_PER_MICRO_BATCH = 3
SECONDS = 5.0  # each time, whatever the length of the run


@dataclass(frozen=True)
class RunSize:
    """The forward and backward passes of a rank in the whole run."""

    micro_batches: int
    tokens: float  # of a micro-batch, on average

    @classmethod
    def of(cls, *, steps: int, tokens: int, slots: int, ranks: int) -> "RunSize":
        """tokens: trained in the whole run. slots: the most tokens of a micro-batch of a rank.

        The number of micro-batches is a lower bound: they hold no more than their slots.
        """
        steps = max(1, steps)
        in_step = max(1, tokens // (steps * max(1, slots) * ranks))
        micro_batches = steps * in_step
        return cls(micro_batches, tokens / (micro_batches * ranks))


@dataclass(frozen=True)
class Allowance:
    """The limits of one time: both must be reached before the completions end early."""

    passes: int
    seconds: float = SECONDS
    pass_seconds: float = 0.0  # the duration of a forward pass, as far as known


UNLIMITED = Allowance(passes=2**31)


def allowance_of(run: RunSize, pass_tokens: int, pass_seconds: float) -> Allowance:
    """pass_tokens: of one pass of the samples, which takes longer if a micro-batch has fewer."""
    relative_cost = max(1.0, pass_tokens / max(1.0, run.tokens))
    passes = SHARE * PASSES_PER_MICRO_BATCH * run.micro_batches / (TIMES * relative_cost)
    return Allowance(int(passes), pass_seconds=pass_seconds)


class Meter:
    """Counts the passes of one time."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._pass_seconds = allowance.pass_seconds
        self._start = self._last = clock()
        self._passes = 0
        self.is_spent = False

    def may_pass(self) -> bool:
        """Whether the next pass is affordable, which then starts now."""
        now = self._clock()
        if self._passes:
            self._pass_seconds = now - self._last
        is_counted = self._passes < self._allowance.passes
        if not is_counted and now - self._start + self._pass_seconds > self._allowance.seconds:
            self.is_spent = True
            return False
        self._passes += 1
        self._last = now
        return True
