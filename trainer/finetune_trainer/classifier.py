"""Scores every class for every validation example: the log-probability of its whole label."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_api.tasks import Classification
from finetune_data.dataset import TokenSplit
from finetune_data.examples import COMPLETION
from finetune_data.failures import FailureError
from finetune_trainer import classification, stepping
from finetune_trainer.batches import Costs
from finetune_trainer.classification import Scores
from finetune_trainer.engine import Engine
from finetune_trainer.microbatch import Example, arrange

Tokens = tuple[int, ...]


class Classifier:
    """Made once; measures after each epoch. All ranks take part and get the same numbers."""

    def __init__(
        self,
        asked: Classification,
        training: TokenSplit,
        validation: TokenSplit,
        *,
        positive: Tokens | None,
        costs: Costs,
        is_alive: Callable[[], None],
    ) -> None:
        """positive: the tokens of the positive class, its end-of-sequence token too."""
        self._asked = asked
        self._costs = costs
        self._is_alive = is_alive  # called after each micro-batch
        cut = [_cut(validation, index) for index in range(len(validation))]
        others = [_cut(training, index)[1] for index in range(len(training))]
        self.labels = classification.to_classes([others, [label for _, label in cut]])
        self._prompts = [prompt for prompt, _ in cut]
        numbers = {label: number for number, label in enumerate(self.labels)}
        self._truth = np.array([numbers[label] for _, label in cut], np.int64)
        self._positive = None if positive is None else numbers.get(positive)
        if positive is not None and self._positive is None:
            raise FailureError(
                Failure(
                    code=Reason.INVALID_DATA,
                    message="the positive class is no completion of the training or validation "
                    "file: write it as the files do, with its leading space",
                    param="hyperparameters.classificationPositiveClass",
                )
            )

    @property
    def has_one_class(self) -> bool:
        """Then neither AUROC nor AUPRC means anything."""
        return len(set(self._truth.tolist())) < 2

    def measure(self, engine: Engine) -> dict[str, float | None]:
        """The columns of results.csv for the whole validation file."""
        scores = classification.softmax(self.scores(engine))
        return classification.measure(scores, self._truth, self._asked, self._positive)

    def scores(self, engine: Engine) -> Scores:
        """[examples, classes]: log-probability of each label behind each prompt."""
        import torch

        classes = len(self.labels)
        lengths = [len(p) + len(label) for p in self._prompts for label in self.labels]
        shares = stepping.shares(lengths, engine, self._costs)
        found = torch.zeros(len(lengths), dtype=torch.float64, device=engine.device)
        engine.model.eval()
        with torch.no_grad():
            for part in shares[engine.place.rank]:
                rows = [self._row(index, classes) for index in part]
                batch = arrange(rows, packed=engine.way.is_packed, prompts=False)
                nll = engine.predict(batch, 0.0)[1].double()
                owners = torch.tensor([part[owner] for owner in batch.owners], dtype=torch.int64)
                found.index_add_(0, owners.to(engine.device), -nll)
                self._is_alive()
        engine.model.train()
        whole: Scores = engine.sum(found).cpu().numpy()  # each is on one rank, 0 on the others
        return whole.reshape(-1, classes)

    def _row(self, index: int, classes: int) -> Example:
        prompt, label = self._prompts[index // classes], self.labels[index % classes]
        tokens = np.array([*prompt, *label], np.int64)
        roles = np.zeros(len(tokens), np.uint8)
        roles[len(prompt) :] = COMPLETION
        return tokens, roles


def _cut(split: TokenSplit, index: int) -> tuple[Tokens, Tokens]:
    """Prompt and completion; a start token belongs to the prompt."""
    tokens, roles = split.example(index)
    start = int(np.argmax(roles == COMPLETION))
    return tuple(tokens[:start].tolist()), tuple(tokens[start:].tolist())


def positive_tokens(folder: Path, asked: Classification) -> Tokens | None:
    """The positive class as the base model's tokenizer in `folder` makes it of a completion."""
    from finetune_data.examples import Row
    from finetune_data.findings import Finding
    from finetune_data.tokenization import load_tokenizer

    if asked.positive_class is None:
        return None
    [found] = load_tokenizer(folder, "the base model").encode([Row(1, "?", asked.positive_class)])
    assert not isinstance(found, Finding)  # only chats become findings
    start = found.roles.index(COMPLETION)
    return tuple(found.tokens[start:])
