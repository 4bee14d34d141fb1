"""Class scores of the validation examples: the log-probability of each class's whole label."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from finetune_api.errors import FailureError
from finetune_api.tasks import Classification
from finetune_data.read.examples import COMPLETION
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer import failures
from finetune_trainer.batching.microbatch import Example, arrange
from finetune_trainer.batching.order import Costs
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.evaluation import class_metrics
from finetune_trainer.evaluation.class_metrics import Labels, Scores
from finetune_trainer.evaluation.confusion import ConfusionMatrix
from finetune_trainer.step import stepper

Tokens = tuple[int, ...]


class ClassScorer:
    """Measures classification metrics after each epoch.

    All ranks take part and get the same numbers.
    """

    def __init__(
        self,
        requested: Classification,
        training: TokenSplit,
        validation: TokenSplit,
        *,
        positive: Callable[[Sequence[Tokens]], int | None],
        costs: Costs,
        heartbeat: Callable[[], None],
    ) -> None:
        """positive: returns the index of the positive class; see `find_positive_class`.

        heartbeat: called after each micro-batch.
        """
        self._requested = requested
        self._costs = costs
        self._heartbeat = heartbeat
        cut = [_cut(validation, index) for index in range(len(validation))]
        others = [_cut(training, index)[1] for index in range(len(training))]
        self.labels = class_metrics.to_classes([others, [label for _, label in cut]])
        self._prompts = [prompt for prompt, _ in cut]
        numbers = {label: number for number, label in enumerate(self.labels)}
        self._truth = np.array([numbers[label] for _, label in cut], np.int64)
        self._positive = positive(self.labels)
        self._predicted: Labels | None = None  # by the last `measure`

    def confusion(self, decode: Callable[[Tokens], str]) -> ConfusionMatrix | None:
        """The confusion matrix of the last `measure`; None before the first."""
        if self._predicted is None:
            return None
        labels = [decode(label) for label in self.labels]
        return ConfusionMatrix.of(labels, self._truth.tolist(), self._predicted.tolist())

    @property
    def has_one_class(self) -> bool:
        """Whether the validation file has only one class, which leaves AUROC undefined."""
        return len(set(self._truth.tolist())) < 2

    def measure(self, engine: Engine) -> dict[str, float | None]:
        """The classification columns of results.csv for the whole validation file."""
        scores = class_metrics.softmax(self.scores(engine))
        self._predicted = scores.argmax(1)
        return class_metrics.measure(scores, self._truth, self._requested, self._positive)

    def scores(self, engine: Engine) -> Scores:
        """Return the log-probability of each label after each prompt: [examples, classes]."""
        import torch

        classes = len(self.labels)
        lengths = [len(p) + len(label) for p in self._prompts for label in self.labels]
        shares = stepper.shares(lengths, engine, self._costs)
        found = torch.zeros(len(lengths), dtype=torch.float64, device=engine.device)
        engine.model.eval()
        with torch.no_grad():
            for part in shares[engine.coordinates.rank]:
                rows = [self._row(index, classes) for index in part]
                batch = arrange(rows, packed=engine.compute_path.is_packed, prompts=False)
                nll = engine.predict(batch, 0.0)[1].double()
                owners = torch.tensor([part[owner] for owner in batch.owners], dtype=torch.int64)
                found.index_add_(0, owners.to(engine.device), -nll)
                self._heartbeat()
        engine.model.train()
        # each score is on one rank, and 0 on the others
        whole: Scores = engine.sum(found).cpu().numpy()
        return whole.reshape(-1, classes)

    def _row(self, index: int, classes: int) -> Example:
        prompt, label = self._prompts[index // classes], self.labels[index % classes]
        tokens = np.array([*prompt, *label], np.int64)
        roles = np.zeros(len(tokens), np.uint8)
        roles[len(prompt) :] = COMPLETION
        return tokens, roles


def _cut(split: TokenSplit, index: int) -> tuple[Tokens, Tokens]:
    """Split an example into prompt and completion.

    A start token belongs to the prompt; tokens after the last learned one belong to neither.
    """
    tokens, roles = split.example(index)
    learned = np.flatnonzero(roles == COMPLETION)
    start, end = int(learned[0]), int(learned[-1]) + 1
    return tuple(tokens[:start].tolist()), tuple(tokens[start:end].tolist())


def find_positive_class(
    folder: Path, requested: Classification
) -> Callable[[Sequence[Tokens]], int | None]:
    """Return a function that finds the label of the positive class.

    It is the label with the same tokens, or else the only label with the same text: a chat template
    can add text around it. `folder` has the tokenizer of the base model. The function raises
    FailureError (InvalidData) if no label matches.
    """

    def find(labels: Sequence[Tokens]) -> int | None:
        from finetune_data.read.examples import Row
        from finetune_data.read.findings import Finding
        from finetune_data.tokenize.loading import load_tokenizer

        text = requested.positive_class
        if text is None:
            return None
        tokenizer = load_tokenizer(folder, "the base model")
        [found] = tokenizer.encode([Row(1, "?", text)])
        assert not isinstance(found, Finding)  # only chats become findings
        [encoded] = found
        exact = tuple(encoded.tokens[encoded.roles.index(COMPLETION) :])
        if exact in labels:
            return labels.index(exact)
        texts = [tokenizer.decode(label).strip() for label in labels]
        if texts.count(text.strip()) == 1:
            return texts.index(text.strip())
        raise FailureError(failures.unknown_positive_class(text))

    return find
