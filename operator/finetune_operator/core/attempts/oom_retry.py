"""Out of memory: the next attempt halves the tokens of a micro-batch and keeps the batch size."""

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason

SMALLEST_SHARE = 1 / 16  # below it something else is too large: model, optimizer, one long row


def next_share(attempts: list[Attempt], number: int) -> float:
    """The share of a micro-batch's tokens for attempt `number`.

    It starts at 1, is halved after each attempt that ran out of memory, and never grows again.
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
    """Whether the share of an attempt that ran out of memory cannot be halved again."""
    return share / 2 < SMALLEST_SHARE


def share_to_record(share: float) -> float | None:
    """The value in the attempt's record, which leaves out the usual share of 1."""
    return None if share == 1 else share
