"""The sample completions of a run: the same prompts, completed before and after training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_data.tokenize.dataset import Dataset
from finetune_data.tokenize.end_tokens import end_tokens
from finetune_data.tokenize.loading import load_tokenizer
from finetune_trainer.reporting.report_data import Sample
from finetune_trainer.reporting.samples.allowance import RunSize, allowance_of
from finetune_trainer.reporting.samples.generation import (
    MAX_COMPLETION_TOKENS,
    Generate,
    make_generator,
)
from finetune_trainer.reporting.samples.prompts import Prompt, choose_prompts

if TYPE_CHECKING:
    from finetune_trainer.engine.deepspeed import Engine

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Completed:
    """The completions of all prompts, as text."""

    texts: list[str]
    cut_at: int | None = None  # tokens, if the allowance ended some of them early

    @property
    def shown(self) -> list[str] | None:
        """None if the allowance permitted no token."""
        return None if self.cut_at == 0 else self.texts


class SampleCompletions:
    """Prompts from the validation file, or from the training file if there is no validation file.

    All ranks create one and call `complete` together.
    """

    def __init__(
        self,
        engine: "Engine",
        dataset: Dataset,
        base: Path,
        heartbeat: Callable[[], None],
        *,
        run: RunSize,
        pass_seconds: float,
    ) -> None:
        """base: the folder with the tokenizer. heartbeat: called after each generated token.

        pass_seconds: the duration of a short forward pass.
        """
        self._tokenizer = load_tokenizer(base, "the base model")
        self.end_tokens = end_tokens(base, dataset, self._tokenizer)
        ends = frozenset(self.end_tokens)
        chosen = choose_prompts(dataset.validation or dataset.train)
        self._prompts = [prompt._replace(ends=ends) for prompt in chosen]
        tokens = pass_tokens(self._prompts, has_cache=engine.zero_stage < 3)
        allowance = allowance_of(run, tokens, pass_seconds)
        self._generate = make_generator(engine, heartbeat, allowance)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens)

    def texts(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token, for people."""
        return self._tokenizer.readable_texts(tokens)

    def complete(self) -> Completed:
        """Complete the prompts with the current weights; rank 0 gets the texts."""
        return complete_prompts(self._prompts, self._generate, self.decode)

    def samples(self, before: Sequence[str] | None, after: Sequence[str] | None) -> list[Sample]:
        """Return the samples; ignores `before` if it has another number of prompts."""
        if before is not None and len(before) != len(self._prompts):
            before = None
        return make_samples(self._prompts, self.decode, before=before, after=after)


def pass_tokens(prompts: Sequence[Prompt], *, has_cache: bool) -> int:
    """The tokens of a forward pass; with a cache it computes only the last token of each prompt."""
    if has_cache:
        return len(prompts)
    return sum(len(prompt.tokens) + MAX_COMPLETION_TOKENS for prompt in prompts)


def complete_prompts(prompts: Sequence[Prompt], generate: Generate, decode: Decode) -> Completed:
    """Return the completion of each prompt as text."""
    found, is_spent = generate(prompts)
    open_rows = [
        len(tokens)
        for prompt, tokens in zip(prompts, found, strict=False)  # some ranks get none
        if len(tokens) < MAX_COMPLETION_TOKENS and not prompt.end_tokens & {*tokens[-1:]}
    ]
    cut_at = max(open_rows, default=None) if is_spent else None
    return Completed([decode(tokens) for tokens in found], cut_at)


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
