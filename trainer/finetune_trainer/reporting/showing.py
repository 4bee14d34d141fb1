"""The prompts that a report shows, chosen once and completed by all ranks together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_data.tokenize.dataset import Dataset
from finetune_data.tokenize.tokenizer import load_tokenizer
from finetune_trainer.reporting import samples
from finetune_trainer.reporting.data import Sample

if TYPE_CHECKING:
    from finetune_trainer.engine.deepspeed import Engine


class Showing:
    """Of the validation file where there is one, else of the training file."""

    def __init__(
        self, engine: "Engine", dataset: Dataset, base: Path, is_alive: Callable[[], None]
    ) -> None:
        """base: has the tokenizer. is_alive: called after each token."""
        self._prompts = samples.choose(dataset.validation or dataset.train)
        self._tokenizer = load_tokenizer(base, "the base model")
        self._generate = samples.generate(engine, is_alive)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens)

    def complete(self) -> list[str]:
        """By the model as it is now."""
        return samples.complete(self._prompts, self._generate, self.decode)

    def samples(self, before: Sequence[str] | None, after: Sequence[str] | None) -> list[Sample]:
        """Side by side; `before` is left out where it is of other prompts."""
        if before is not None and len(before) != len(self._prompts):
            before = None
        return samples.make(self._prompts, self.decode, before=before, after=after)
