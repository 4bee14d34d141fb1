"""The present in gauges: FineTunes by state and, while they run, how far they are.

Made anew at every scrape from what is known, so nothing stays behind of what has ended.
"""

from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.names import State
from finetune_api.outcome import ProgressReport
from finetune_operator.core.key import Key

# name without prefix -> what it is; one series a running FineTune each
PROGRESS = {
    "progress_ratio": "Optimizer steps done of all, 0 to 1.",
    "step": "Optimizer steps done.",
    "training_loss": "Loss of the last step, the weighted objective.",
    "validation_loss": "Loss of the last validation.",
    "learning_rate": "Learning rate of the last step.",
    "tokens_per_second": "Real tokens a second, over all ranks.",
    "trained_tokens": "Tokens trained on so far, repeats counted.",
    "last_step_age_seconds": "Since the last finished step, while it trains.",
}


@dataclass(frozen=True)
class Known:
    """Of one FineTune, what the operator saw last."""

    state: str
    pending_since: datetime | None = None
    report: ProgressReport | None = None
    phase: str | None = None
    phase_since: datetime | None = None


class States(Collector):
    """FineTunes by key; `collect` is called at each scrape."""

    def __init__(self) -> None:
        self._known: dict[Key, Known] = {}

    def get(self, key: Key) -> Known | None:
        return self._known.get(key)

    def keys(self) -> set[Key]:
        return set(self._known)

    def remember(self, key: Key, seen: Known) -> None:
        """A look without a report keeps the last one while it runs: a poll may fail."""
        former = self._known.get(key)
        if seen.report is None and former is not None and seen.state == State.RUNNING:
            seen = replace(seen, report=former.report)
        self._known[key] = seen

    def forget(self, key: Key) -> None:
        self._known.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        yield self._by_state()
        yield self._oldest_pending()
        yield from self._progress()

    def _by_state(self) -> Metric:
        labels = ["namespace", "state"]
        family = GaugeMetricFamily("finetune_jobs", "FineTunes by state.", labels=labels)
        tally = Tally((key.namespace, known.state) for key, known in self._known.items())
        for pair, count in sorted(tally.items()):
            family.add_metric(pair, count)
        return family

    def _oldest_pending(self) -> Metric:
        family = GaugeMetricFamily(
            "finetune_oldest_pending_seconds",
            "How long the longest waiting FineTune is pending; suspended ones do not count.",
            labels=["namespace"],
        )
        oldest: dict[str, datetime] = {}
        for key, known in self._known.items():
            if known.pending_since is not None:
                others = oldest.get(key.namespace, known.pending_since)
                oldest[key.namespace] = min(others, known.pending_since)
        now = datetime.now(UTC)
        for namespace, since in sorted(oldest.items()):
            family.add_metric([namespace], max(0.0, (now - since).total_seconds()))
        return family

    def _progress(self) -> Iterator[Metric]:
        running = {
            key: _values(known.report)
            for key, known in sorted(self._known.items(), key=lambda pair: str(pair[0]))
            if known.state == State.RUNNING and known.report is not None
        }
        for name, text in PROGRESS.items():
            family = GaugeMetricFamily(f"finetune_job_{name}", text, labels=["namespace", "name"])
            for key, values in running.items():
                value = values[name]
                if value is not None:
                    family.add_metric([key.namespace, key.name], value)
            yield family


def _values(report: ProgressReport) -> dict[str, float | None]:
    is_training = report.stage == "training"
    return {
        "progress_ratio": min(1.0, report.step / report.steps) if report.steps else None,
        "step": report.step,
        "training_loss": report.training_loss,
        "validation_loss": report.validation_loss,
        "learning_rate": report.learning_rate,
        "tokens_per_second": report.tokens_per_second,
        "trained_tokens": report.trained_tokens,
        "last_step_age_seconds": report.last_step_age if is_training else None,
    }
