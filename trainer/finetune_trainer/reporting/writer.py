"""Writes the training report and the model card."""

from collections.abc import Callable
from pathlib import Path

from finetune_api.outcome import Failure
from finetune_api.tasks import TrainTask
from finetune_data.memory.shape import ModelShape
from finetune_data.tokenize.dataset import Dataset
from finetune_storage.s3 import Storage
from finetune_trainer import run_manifest
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.errors import Preempted, failure_from_exception
from finetune_trainer.evaluation.class_scorer import ClassScorer
from finetune_trainer.outputs.run_log import RunLog
from finetune_trainer.reporting.learned_examples import learned_examples
from finetune_trainer.reporting.report_data import ReportData
from finetune_trainer.reporting.report_files import find_license, write_page
from finetune_trainer.reporting.run_history import RunHistory
from finetune_trainer.reporting.samples.allowance import RunSize
from finetune_trainer.reporting.samples.completions import Completed, SampleCompletions

Describe = Callable[[str, str], ReportData]  # takes the model's name and its publication time


class ReportWriter:
    """Collects the content of the report during a run.

    All ranks make the same calls, because they complete the sample prompts together.
    """

    def __init__(
        self,
        task: TrainTask,
        engine: Engine,
        dataset: Dataset,
        storage: Storage,
        run_log: RunLog,
        *,
        base: Path,
        run: RunSize,
        pass_seconds: float,
    ) -> None:
        """base: the folder with the base model's tokenizer and card.

        run, pass_seconds: for the length of the sample completions, see `SampleCompletions`.
        """
        self._task = task
        self._engine = engine
        self._dataset = dataset
        self._storage = storage
        self._run_log = run_log
        self._base = base
        self._completions = SampleCompletions(
            *(engine, dataset, base, run_log.heartbeat), run=run, pass_seconds=pass_seconds
        )
        self._history = RunHistory(
            *(task.run.layout.root, storage),
            attempt=task.attempt,
            processes=engine.coordinates.ranks,
            is_first=engine.coordinates.rank == 0,
            warn=run_log.warn,
        )
        self._state = TrainingState()

    @property
    def end_tokens(self) -> list[int]:
        """The tokens at which the published model stops, the learned ones first."""
        return self._completions.end_tokens

    def begin(self, state: TrainingState) -> None:
        """Call before the first step; at step 0 the untrained model completes the prompts."""
        self._state = state
        self._history.begin(state.step, state.trained_tokens)
        if state.step == 0:
            done = self._completions.complete()
            self._history.before = done.shown
            self._history.before_cut_at = done.cut_at
        self._history.save()

    def record_step(self, state: TrainingState, *, is_epoch_end: bool) -> None:
        self._state = state
        self._history.record_step(state.step, state.trained_tokens)
        if is_epoch_end:
            self._history.save()

    def fail(self, error: BaseException, classifier: ClassScorer | None) -> None:
        """Write the report of a failed run; not of a preempted one, which continues elsewhere."""
        if not isinstance(error, Exception):
            return self._history.end(type(error).__name__)
        failure = failure_from_exception(error, self._engine.coordinates.rank).failure
        self._history.end(failure.message)
        if self._engine.coordinates.rank == 0 and not isinstance(error, Preempted):
            data = self._describe(classifier, None, failure=failure)
            write_page(data, self._task.run.layout.root, self._storage)
        return None

    def finish(self, classifier: ClassScorer | None) -> Describe:
        """Call after the last step; the fine-tuned model completes the prompts."""
        self._history.end(None)
        after = self._completions.complete()

        def describe(name: str, published: str) -> ReportData:
            return self._describe(classifier, after).replace(name=name, published=published)

        return describe

    def _describe(
        self,
        classifier: ClassScorer | None,
        after: Completed | None,
        *,
        failure: Failure | None = None,
    ) -> ReportData:
        record, manifest = self._history.record, self._dataset.manifest
        shape = ModelShape.of(self._engine.objective.config.to_dict(), None)
        return ReportData(
            run=run_manifest.make(self._task, manifest, self._engine.precision),
            dataset=manifest,
            results=self._run_log.results,
            parameters=shape.parameters if shape else None,
            license=find_license(self._base),
            before=self._state.before,
            epochs=self._state.completed_epochs,
            attempts=record.attempts,
            speeds=record.speeds,
            examples=learned_examples(self._dataset.train, self._completions.texts),
            samples=self._completions.samples(record.before, after.shown if after else None),
            samples_cut_before=record.before_cut_at,
            samples_cut_after=after.cut_at if after else None,
            confusion=classifier.confusion(self._completions.decode) if classifier else None,
            failure=failure,
        )
