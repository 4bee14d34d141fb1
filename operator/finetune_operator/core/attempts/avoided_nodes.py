"""The nodes that the next attempt avoids: their driver or GPU ended an earlier one.

The scheduler does not learn from such an end, and prefers the node that already has the image. It
is a preference: if every node has an old driver, the attempts still end with that reason.
"""

from collections.abc import Sequence

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason

REASONS = frozenset({Reason.DRIVER_TOO_OLD, Reason.GPU_UNUSABLE})
NODES_AT_MOST = 16  # the latest ones


def avoided_nodes(attempts: Sequence[Attempt], number: int) -> tuple[str, ...]:
    """The names of the nodes for attempt `number`, in the order of the attempts."""
    found = [
        attempt.node
        for attempt in attempts
        if attempt.number < number and attempt.reason in REASONS and attempt.node
    ]
    return tuple(dict.fromkeys(found))[-NODES_AT_MOST:]
