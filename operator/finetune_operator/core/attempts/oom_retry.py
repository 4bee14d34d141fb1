"""Out of memory: the next attempt is smaller in what ran out.

After GPU memory, it halves the tokens of a micro-batch and keeps the batch size. After host memory,
it raises the estimated memory request, so that its pods are placed on nodes with more room. On CPU
it does both, because micro-batches are host memory there.
"""

from dataclasses import replace

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Attempt, Resolved
from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.build.pod_resources import RAISES_AT_MOST, estimated_requests
from finetune_operator.build.train_job import AttemptSize
from finetune_operator.core.verdict import Verdict
from finetune_operator.settings import MEMORY, Settings

SMALLEST_SHARE = 1 / 16  # below it something else is too large: model, optimizer, one long row


def next_size(finetune: FineTune, attempts: list[Attempt], number: int) -> AttemptSize:
    """The size of attempt `number`, from the ends of the attempts before it."""
    former = [item for item in attempts if item.number < number]
    raises = sum(item.exhausted_memory == "host" for item in former)
    share = next_share(former, number, is_on_cpu=_is_on_cpu(finetune))
    return AttemptSize(share, min(raises, RAISES_AT_MOST))


def next_share(attempts: list[Attempt], number: int, *, is_on_cpu: bool = False) -> float:
    """The share of a micro-batch's tokens for attempt `number`.

    It starts at 1, is halved after each attempt whose micro-batches ran out of memory, and never
    grows again. Versions without `exhausted_memory` halved it after every such attempt.
    """
    former = max(
        (item for item in attempts if item.number < number),
        key=lambda item: item.number,
        default=None,
    )
    if former is None:
        return 1.0
    share = former.micro_batch_share or 1.0
    is_host = former.exhausted_memory == "host" and not is_on_cpu
    return share / 2 if former.reason == Reason.OUT_OF_MEMORY and not is_host else share


def share_to_record(share: float) -> float | None:
    """The value in the attempt's record, which leaves out the usual share of 1."""
    return None if share == 1 else share


def memory_request(
    finetune: FineTune, resolved: Resolved, settings: Settings, size: AttemptSize
) -> str | None:
    """The estimated memory request of the pods; None if they have none from the estimate."""
    return estimated_requests(finetune, resolved, settings, size.memory_raises).get(MEMORY)


def describe_change(
    finetune: FineTune,
    resolved: Resolved,
    settings: Settings,
    attempts: list[Attempt],
    number: int,
) -> str | None:
    """What attempt `number` changes in comparison with the one before it, in words."""
    before = next_size(finetune, attempts, number - 1)
    now = next_size(finetune, attempts, number)
    request = memory_request(finetune, resolved, settings, now)
    changes = []
    if now.micro_batch_share < before.micro_batch_share:
        changes.append(messages.HALF_MICRO_BATCH)
    if request is not None and now.memory_raises > before.memory_raises:
        changes.append(messages.larger_request(request))
    return " and ".join(changes) or None


def weigh_host_memory(verdict: Verdict, finetune: FineTune, request: str | None) -> Verdict:
    """Add what the user can change, and count the failure if the next attempt changes nothing.

    request: the estimated memory request of the pods, if they have one.
    """
    resolved = finetune.status.resolved
    if verdict.error.code != Reason.OUT_OF_MEMORY or verdict.exhausted_memory != "host":
        return verdict
    limit, hint = finetune.spec.resources.memory, verdict.error.hint
    estimate = resolved.memory_per_pod_gib if resolved else None
    if request is not None:
        hint = messages.hint_for_request(request)
    elif limit is not None and estimate is not None:
        hint = messages.hint_for_limit(limit, estimate)
    is_same = request is None and not _is_on_cpu(finetune)
    error = verdict.error.replace(hint=hint)
    return replace(verdict, error=error, is_counted=verdict.is_counted or is_same)


def find_refusal(
    verdict: Verdict, finetune: FineTune, size: AttemptSize, request: str | None
) -> str | None:
    """Why an attempt that ran out of memory cannot be followed by a smaller one, if so.

    size and request: of the attempt that ended.
    """
    if verdict.error.code != Reason.OUT_OF_MEMORY:
        return None
    if verdict.exhausted_memory == "host" and not _is_on_cpu(finetune):
        is_largest = request is not None and size.memory_raises >= RAISES_AT_MOST
        return messages.larger_request_failed(request or "") if is_largest else None
    is_smallest = size.micro_batch_share / 2 < SMALLEST_SHARE
    return messages.smaller_batch_failed(size.micro_batch_share) if is_smallest else None


def _is_on_cpu(finetune: FineTune) -> bool:
    return finetune.spec.resources.gpus_per_node == 0
