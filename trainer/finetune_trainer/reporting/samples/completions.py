"""The sample completions of a run: the same prompts, completed before and after training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_data.tokenize.dataset import Dataset
from finetune_data.tokenize.loading import load_tokenizer
from finetune_trainer.reporting.report_data import Sample
from finetune_trainer.reporting.samples.generation import Generate, make_generator
from finetune_trainer.reporting.samples.prompts import Prompt, choose_prompts

if TYPE_CHECKING:
    from finetune_trainer.engine.deepspeed import Engine

Decode = Callable[[Sequence[int]], str]


class SampleCompletions:
    """Prompts from the validation file, or from the training file if there is no validation file.

    All ranks create one and call `complete` together.
    """

    def __init__(
        self, engine: "Engine", dataset: Dataset, base: Path, heartbeat: Callable[[], None]
    ) -> None:
        """base: the folder with the tokenizer. heartbeat: called after each generated token."""
        self._prompts = choose_prompts(dataset.validation or dataset.train)
        self._tokenizer = load_tokenizer(base, "the base model")
        self._generate = make_generator(engine, heartbeat)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens)

    def complete(self) -> list[str]:
        """Complete the prompts with the current weights; rank 0 gets the texts."""
        return complete_prompts(self._prompts, self._generate, self.decode)

    def samples(self, before: Sequence[str] | None, after: Sequence[str] | None) -> list[Sample]:
        """Return the samples; ignores `before` if it has another number of prompts."""
        if before is not None and len(before) != len(self._prompts):
            before = None
        return make_samples(self._prompts, self.decode, before=before, after=after)


def complete_prompts(prompts: Sequence[Prompt], generate: Generate, decode: Decode) -> list[str]:
    """Return the completion of each prompt as text."""
    return [decode(tokens) for tokens in generate(prompts)]


def make_samples(
    prompts: Sequence[Prompt],
    decode: Decode,
    *,
    before: Sequence[str] | None,
    after: Sequence[str] | None,
) -> list[Sample]:
    """Combine the prompts with the results of `complete_prompts`; None: not generated."""
    return [
        Sample(
            prompt=decode(prompt.tokens),
            expected=decode(prompt.expected),
            before=before[index] if before is not None else None,
            after=after[index] if after is not None else None,
        )
        for index, prompt in enumerate(prompts)
    ]
