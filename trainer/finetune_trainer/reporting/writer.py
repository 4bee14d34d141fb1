"""What a run leaves for people: its story while it goes on, then the report and the model card."""

from collections.abc import Callable
from pathlib import Path

from finetune_api.outcome import Failure
from finetune_api.tasks import TrainTask
from finetune_data.tokenize.dataset import Dataset
from finetune_storage.s3 import Storage
from finetune_trainer import run_manifest
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.errors import Preempted, explain
from finetune_trainer.evaluation.class_scorer import ClassScorer
from finetune_trainer.outputs.run_log import RunLog
from finetune_trainer.reporting.report_data import ReportData
from finetune_trainer.reporting.report_files import find_license, write_page
from finetune_trainer.reporting.run_history import RunHistory
from finetune_trainer.reporting.samples.completions import SampleCompletions

Describe = Callable[[str, str], ReportData]  # by the model's name and when it was published


class ReportWriter:
    """All ranks call it together: the sample prompts are completed by all of them."""

    def __init__(
        self,
        task: TrainTask,
        engine: Engine,
        dataset: Dataset,
        storage: Storage,
        run_log: RunLog,
        *,
        base: Path,
    ) -> None:
        self._task = task
        self._engine = engine
        self._dataset = dataset
        self._storage = storage
        self._run_log = run_log
        self._base = base
        self._showing = SampleCompletions(engine, dataset, base, run_log.heartbeat)
        self._story = RunHistory(
            *(task.run.layout.root, storage),
            attempt=task.attempt,
            processes=engine.coordinates.ranks,
            is_first=engine.coordinates.rank == 0,
            warn=run_log.warn,
        )
        self._state = TrainingState()

    def begin(self, state: TrainingState) -> None:
        """Before the first step; the base model completes the prompts."""
        self._state = state
        self._story.begin(state.step, state.trained_tokens)
        if state.step == 0:
            self._story.before = self._showing.complete()
        self._story.save()

    def record_step(self, state: TrainingState, *, is_epoch_end: bool) -> None:
        self._state = state
        self._story.stepped(state.step, state.trained_tokens)
        if is_epoch_end:
            self._story.save()

    def fail(self, error: BaseException, classifier: ClassScorer | None) -> None:
        """The report of what was done until then; not of a run that goes on elsewhere."""
        if not isinstance(error, Exception):
            return self._story.end(type(error).__name__)
        failure = explain(error, self._engine.coordinates.rank)
        self._story.end(failure.message)
        if self._engine.coordinates.rank == 0 and not isinstance(error, Preempted):
            data = self._describe(classifier, None, failure=failure)
            write_page(data, self._task.run.layout.root, self._storage)
        return None

    def finish(self, classifier: ClassScorer | None) -> Describe:
        """After the last step; the fine-tuned model completes the prompts."""
        self._story.end(None)
        after = self._showing.complete()

        def describe(name: str, published: str) -> ReportData:
            return self._describe(classifier, after).replace(name=name, published=published)

        return describe

    def _describe(
        self,
        classifier: ClassScorer | None,
        after: list[str] | None,
        *,
        failure: Failure | None = None,
    ) -> ReportData:
        record, manifest = self._story.record, self._dataset.manifest
        return ReportData(
            run=run_manifest.make(self._task, manifest, self._engine.precision),
            dataset=manifest,
            results=self._run_log.results,
            license=find_license(self._base),
            before=self._state.before,
            epochs=self._state.completed_epochs,
            attempts=record.attempts,
            speeds=record.speeds,
            samples=self._showing.samples(record.before, after),
            confusion=classifier.confusion(self._showing.decode) if classifier else None,
            failure=failure,
        )
