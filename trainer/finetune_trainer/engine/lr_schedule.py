"""The learning rate of a step, as a pure function: a resumed run needs no scheduler state."""

import math

from finetune_api.hyperparameters import LrSchedule


def learning_rate(
    step: int, *, steps: int, peak: float, warmup_ratio: float, schedule: LrSchedule
) -> float:
    """The rate of optimizer step `step` (1 to `steps`): a linear warmup, then the schedule.

    Neither the first nor the last step has a rate of zero, which would waste it.
    """
    warmup = round(steps * warmup_ratio)
    if step <= warmup:
        return peak * step / (warmup + 1)
    done = (step - 1 - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak * (1 - done) if schedule == "linear" else peak
