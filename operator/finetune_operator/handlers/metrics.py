"""Prometheus metrics of the operator; no user's text in any label but namespace."""

from collections import Counter as Tally

from prometheus_client import Counter, Gauge, Histogram

from finetune_api import names
from finetune_api.finetune import FineTuneStatus
from finetune_operator.kube.observe import Key

RECONCILES = Counter("finetune_operator_reconciles", "Reconciles by result.", ["result"])
RECONCILE_SECONDS = Histogram("finetune_operator_reconcile_seconds", "Time of one reconcile.")
JOBS = Gauge("finetune_jobs", "FineTunes by state.", ["namespace", "state"])
JOBS_ENDED = Counter("finetune_jobs_ended", "FineTunes that ended.", ["result", "reason"])
RESTARTS = Counter("finetune_restarts", "Attempts after the first.", ["reason"])

_states: dict[Key, str] = {}
_shown: set[tuple[str, str]] = set()


def remember(key: Key, state: str | None) -> None:
    """The state of one FineTune, for the gauge."""
    if state is not None and _states.get(key) != state:
        _states[key] = state
        _show()


def forget(key: Key) -> None:
    """It is gone."""
    if _states.pop(key, None) is not None:
        _show()


def count_transition(before: str | None, after: FineTuneStatus) -> None:
    """An end, or a restart."""
    if after.state in names.TERMINAL_STATES and before not in names.TERMINAL_STATES:
        JOBS_ENDED.labels(after.state, after.reason).inc()
    elif before == names.State.RUNNING and after.state == names.State.PENDING:
        ended = [attempt.reason for attempt in after.attempts if attempt.ended_at]
        RESTARTS.labels(ended[-1] if ended else "unknown").inc()


def _show() -> None:
    tally = Tally((key.namespace, state) for key, state in _states.items())
    for labels in _shown - set(tally):
        JOBS.remove(*labels)
    for (namespace, state), count in tally.items():
        JOBS.labels(namespace, state).set(count)
    _shown.clear()
    _shown.update(tally)
