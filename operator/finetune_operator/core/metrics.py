"""The changes of metrics that one status write causes. The caller passes them to Prometheus.

Each event is counted at the status write that records it, so that an operator that starts again
finds it recorded and does not count it twice.
"""

from dataclasses import dataclass
from datetime import datetime

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Attempt, FineTuneStatus
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import ProgressReport

REASONS = frozenset(
    value for key, value in vars(Reason).items() if key.isupper() and isinstance(value, str)
)
FAILURES = REASONS - names.HEALTHY_REASONS  # the reasons of the result `failed`
OTHER = "Other"  # any other reason, because labels are a closed set
SUSPENDED_PHASE = "suspended"
KEPT = frozenset({Reason.SUCCEEDED, Reason.SUSPENDED})  # ends that lose no work


@dataclass(frozen=True)
class Figures:
    """Changes by one write. Times are in seconds; `wasted` and `phases` hold (label, seconds)."""

    result: str | None = None  # the final state
    reason: str = OTHER
    duration: float | None = None
    phases: tuple[tuple[str, float], ...] = ()
    restarts: tuple[str, ...] = ()  # the reason why the attempt before each new one ended
    gpu_seconds: float = 0
    wasted: tuple[tuple[str, float], ...] = ()
    trained_tokens: int = 0


def measure(
    finetune: FineTune,
    after: FineTuneStatus,
    now: datetime,
    report: ProgressReport | None = None,
    phase_since: datetime | None = None,
) -> Figures:
    """Compare the status of `finetune` with `after`. report: the last one of rank 0, if any."""
    before = finetune.status
    ends = after.state in names.TERMINAL_STATES and before.state not in names.TERMINAL_STATES
    spans = _spans(before, after)
    gpus = finetune.spec.resources.nodes * finetune.spec.resources.gpus_per_node
    losses = [(known_reason(_cause(item, after)), _loss(item, after, report)) for item, _ in spans]
    return Figures(
        result=after.state if ends else None,
        reason=known_reason(after.reason),
        duration=_since(after.started_at, now) if ends else None,
        phases=_phases(finetune, after, now, phase_since),
        restarts=_restarts(before, after),
        gpu_seconds=gpus * sum(seconds for _, seconds in spans),
        wasted=tuple(
            (reason, gpus * seconds * share)
            for (reason, share), (_, seconds) in zip(losses, spans, strict=True)
            if gpus * seconds * share
        ),
        trained_tokens=(after.trained_tokens or 0) if ends else 0,
    )


def known_reason(text: str | None) -> str:
    """The reason if it is in the closed set: a pod may report any text."""
    return text if text in REASONS else OTHER


def phase(status: FineTuneStatus) -> str | None:
    """The stage, or that it is suspended; None before the first write and after the end."""
    if status.state == State.PENDING and status.reason == Reason.SUSPENDED:
        return SUSPENDED_PHASE
    return status.stage


def _phases(
    finetune: FineTune, after: FineTuneStatus, now: datetime, since: datetime | None
) -> tuple[tuple[str, float], ...]:
    former = phase(finetune.status)
    if former is None or former == phase(after):
        return ()
    began = since or _began(finetune, former)
    return () if began is None else ((former, max(0.0, (now - began).total_seconds())),)


def _began(finetune: FineTune, former: str) -> datetime | None:
    """The start of the phase according to the status, if the operator did not observe it."""
    status = finetune.status
    turned = {item.type: item.last_transition_time for item in status.conditions}
    if former == Stage.VALIDATING:
        text = status.started_at
    elif former == Stage.TRAINING:
        text = turned.get("Running")
    elif former == SUSPENDED_PHASE:
        text = turned.get("Suspended")
    elif former == Stage.STARTING and finetune.spec.queue_name is None:
        text = max(filter(None, (turned.get("Running"), turned.get("Validated"))), default=None)
    else:
        text = None
    return datetime.fromisoformat(text) if text else None


def _restarts(before: FineTuneStatus, after: FineTuneStatus) -> tuple[str, ...]:
    known = {item.number for item in before.attempts}
    causes = {item.number: item.reason for item in after.attempts}
    new = [item.number for item in after.attempts if item.number not in known and item.number > 1]
    return tuple(known_reason(causes.get(number - 1)) for number in new)


def _spans(before: FineTuneStatus, after: FineTuneStatus) -> list[tuple[Attempt, float]]:
    """Attempts that this write closes, with the seconds that their pods held their GPUs."""
    ended = {item.number for item in before.attempts if item.ended_at is not None}
    return [
        (item, _since(item.started_at, datetime.fromisoformat(item.ended_at)) or 0.0)
        for item in after.attempts
        if item.ended_at is not None and item.number not in ended
    ]


def _cause(attempt: Attempt, after: FineTuneStatus) -> str | None:
    return attempt.reason or after.reason


def _loss(attempt: Attempt, after: FineTuneStatus, report: ProgressReport | None) -> float:
    """The share of an attempt's work that is lost: its steps after the last checkpoint."""
    if _cause(attempt, after) in KEPT:
        return 0.0
    if after.state == State.FAILED or report is None or report.attempt != attempt.number:
        return 1.0
    first = report.resumed_from_step or 0
    done = report.step - first
    kept = max(report.checkpoint_step or 0, first) - first
    return 1.0 if done <= 0 else max(0.0, 1 - kept / done)


def _since(text: str | None, now: datetime) -> float | None:
    if text is None:
        return None
    return max(0.0, (now - datetime.fromisoformat(text)).total_seconds())
