"""Gauges of the present: FineTunes by state, and the progress of running ones.

They are created at each scrape from the known FineTunes, so that no series of a finished one stays.
"""

from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.names import Stage, State
from finetune_api.outcome import ProgressReport
from finetune_operator.core.key import Key

# name without prefix -> description; one series for each running FineTune
PROGRESS = {
    "progress_ratio": "Share of the optimizer steps that are done, 0 to 1.",
    "step": "Optimizer steps done.",
    "training_loss": "Training loss of the last step, with the weights of the objective.",
    "validation_loss": "Loss of the last validation.",
    "learning_rate": "Learning rate of the last step.",
    "tokens_per_second": "Tokens per second over all ranks, without padding.",
    "trained_tokens": "Tokens trained on so far, each epoch counted.",
    "last_step_age_seconds": "Seconds since the last finished step, during training.",
}


@dataclass(frozen=True)
class Known:
    """The last observation of a FineTune."""

    state: str
    pending_since: datetime | None = None
    report: ProgressReport | None = None
    phase: str | None = None
    phase_since: datetime | None = None


class StateCollector(Collector):
    """Holds the known FineTunes. Prometheus calls `collect` at each scrape."""

    def __init__(self) -> None:
        self._known: dict[Key, Known] = {}

    def get(self, key: Key) -> Known | None:
        return self._known.get(key)

    def keys(self) -> set[Key]:
        return set(self._known)

    def remember(self, key: Key, known: Known) -> None:
        """Remember an observation. A running FineTune keeps its report if a poll failed."""
        former = self._known.get(key)
        if known.report is None and former is not None and known.state == State.RUNNING:
            known = replace(known, report=former.report)
        self._known[key] = known

    def forget(self, key: Key) -> None:
        self._known.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        yield self._by_state()
        yield self._oldest_pending()
        yield from self._progress()

    def _by_state(self) -> Metric:
        labels = ["namespace", "state"]
        family = GaugeMetricFamily("finetune_jobs", "Number of FineTunes by state.", labels=labels)
        tally = Tally((key.namespace, known.state) for key, known in self._known.items())
        for pair, count in sorted(tally.items()):
            family.add_metric(pair, count)
        return family

    def _oldest_pending(self) -> Metric:
        family = GaugeMetricFamily(
            "finetune_oldest_pending_seconds",
            "Seconds that the oldest pending FineTune has waited; suspended ones do not count.",
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
    is_training = report.stage == Stage.TRAINING
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
