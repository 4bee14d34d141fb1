"""Out of memory: the next attempt holds half as many tokens at once, with the same batch."""

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason

SMALLEST_SHARE = 1 / 16  # below it something else is too large: model, optimizer, one long row
HINT = (
    "use more GPUs or a higher deepspeed.zeroStage, offload, a shorter maxSequenceLength, "
    "or more resources.memory"
)


def next_share(attempts: list[Attempt], number: int) -> float:
    """Of the tokens that a micro-batch may hold, for attempt `number`; the batch stays.

    Below SMALLEST_SHARE no attempt makes sense. Later attempts keep what an earlier one learnt.
    """
    former = max(
        (item for item in attempts if item.number < number),
        key=lambda item: item.number,
        default=None,
    )
    if former is None:
        return 1.0
    share = former.micro_batch_share or 1.0
    return share / 2 if former.reason == Reason.OUT_OF_MEMORY else share


def is_spent(share: float) -> bool:
    """Whether the share of an attempt that ran out of memory can't be halved again."""
    return share / 2 < SMALLEST_SHARE


def recorded(share: float) -> float | None:
    """As an attempt's record holds it: only what is not the rule."""
    return None if share == 1 else share
