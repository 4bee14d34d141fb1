"""Out of memory: the next attempt is smaller in what ran out.

After GPU memory, it halves the tokens of a micro-batch and keeps the batch size, or uses a plan
that needs less memory of a GPU. After host memory, it raises the estimated memory request, so that
its pods are placed on nodes with more room. On CPU it does both: micro-batches are host memory.
"""

from dataclasses import replace
from typing import Any

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Attempt, Resolved
from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.build.pod_resources import RAISES_AT_MOST, estimated_requests
from finetune_operator.build.train_job import AttemptSize
from finetune_operator.core.verdict import Verdict
from finetune_operator.settings import MEMORY, Settings

HALVINGS = 2  # before the first fallback plan
UNKNOWN_AT_MOST = 5  # attempts before one without host memory whose memory was not recorded
SMALLEST_SHARE = 1 / 16  # below it something else is too large: model, optimizer, one long row


def next_size(
    finetune: FineTune, resolved: Resolved, attempts: list[Attempt], number: int
) -> AttemptSize:
    """The size of attempt `number`, from the ends of the attempts before it.

    The share of a micro-batch is halved twice. Each further time, the next fallback plan is used,
    and the share is halved again once there is none left. It never grows.
    """
    former = [item for item in attempts if item.number < number]
    plans = resolved.fallbacks or []
    failures = sum(_exhausted_micro_batch(item, finetune) for item in former)
    used = min(max(0, failures - HALVINGS), len(plans))
    recorded = min((item.micro_batch_share or 1.0 for item in former), default=1.0)
    raises = sum(item.exhausted_memory == "host" for item in former)
    return AttemptSize(
        micro_batch_share=min(recorded, 0.5 ** (failures - used)),
        memory_raises=min(raises, RAISES_AT_MOST),
        fallback=plans[used - 1] if used else None,
    )


def size_to_record(size: AttemptSize) -> dict[str, Any]:
    """The fields of an attempt's record. The usual share and the usual plan are left out."""
    share, plan = size.micro_batch_share, size.fallback
    return {
        "micro_batch_share": None if share == 1 else share,
        "zero_stage": plan.zero_stage if plan else None,
        "offload": plan.offload if plan else None,
    }


def memory_request(
    finetune: FineTune, resolved: Resolved, settings: Settings, size: AttemptSize
) -> str | None:
    """The estimated memory request of the pods; None if they have none from the estimate."""
    used = size.applied_to(resolved)
    return estimated_requests(finetune, used, settings, size.memory_raises).get(MEMORY)


def describe_change(
    finetune: FineTune,
    resolved: Resolved,
    settings: Settings,
    attempts: list[Attempt],
    number: int,
) -> str | None:
    """What attempt `number` changes in comparison with the one before it, in words."""
    before = next_size(finetune, resolved, attempts, number - 1)
    now = next_size(finetune, resolved, attempts, number)
    request = memory_request(finetune, resolved, settings, now)
    changes = []
    if now.micro_batch_share < before.micro_batch_share:
        changes.append(messages.HALF_MICRO_BATCH)
    if now.fallback is not None and now.fallback != before.fallback:
        changes.append(messages.other_plan(now.fallback.zero_stage, now.fallback.offload))
    if request is not None and now.memory_raises > before.memory_raises:
        changes.append(messages.larger_request(request))
    return " and ".join(changes) or None


def weigh_host_memory(
    verdict: Verdict, finetune: FineTune, estimate: float | None, request: str | None
) -> Verdict:
    """Add what the user can change, and count the failure if the next attempt changes nothing.

    estimate: GiB per pod. request: the estimated memory request of the pods, if they have one.
    """
    if verdict.error.code != Reason.OUT_OF_MEMORY or verdict.exhausted_memory != "host":
        return verdict
    limit, hint = finetune.spec.resources.memory, verdict.error.hint
    if request is not None:
        hint = messages.hint_for_request(request)
    elif limit is not None and estimate is not None:
        hint = messages.hint_for_limit(limit, estimate)
    is_same = request is None and not _is_on_cpu(finetune)
    error = verdict.error.replace(hint=hint)
    return replace(verdict, error=error, is_counted=verdict.is_counted or is_same)


def find_refusal(
    verdict: Verdict,
    finetune: FineTune,
    former: list[Attempt],
    size: AttemptSize,
    request: str | None,
) -> str | None:
    """Why an attempt that ran out of memory cannot be followed by a smaller one, if so.

    former: the attempts before it. size and request: its own.
    """
    if verdict.error.code != Reason.OUT_OF_MEMORY:
        return None
    if verdict.exhausted_memory == "host" and not _is_on_cpu(finetune):
        # Older CRDs drop `exhaustedMemory`, and no raise is recorded.
        unknown = sum(_is_unknown(item) for item in former)
        is_largest = size.memory_raises >= RAISES_AT_MOST or unknown >= UNKNOWN_AT_MOST
        return messages.larger_request_failed(request) if request and is_largest else None
    is_smallest = size.micro_batch_share / 2 < SMALLEST_SHARE
    return messages.smaller_batch_failed(size.micro_batch_share) if is_smallest else None


def _is_unknown(attempt: Attempt) -> bool:
    return attempt.reason == Reason.OUT_OF_MEMORY and attempt.exhausted_memory is None


def _exhausted_micro_batch(attempt: Attempt, finetune: FineTune) -> bool:
    """Whether its micro-batches were too large. Older versions did not record which memory it was.

    On CPU, they are host memory.
    """
    is_host = attempt.exhausted_memory == "host" and not _is_on_cpu(finetune)
    return attempt.reason == Reason.OUT_OF_MEMORY and not is_host


def _is_on_cpu(finetune: FineTune) -> bool:
    return finetune.spec.resources.gpus_per_node == 0
