"""The decision whether the trainer can use an example, for the prepare Job and the command line."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_data.read.examples import COMPLETION, PROMPT, Example
from finetune_data.read.findings import TOO_LONG, Finding
from finetune_data.tokenize.encoded import Encoded
from finetune_data.tokenize.tokenizer import Tokenizing


@dataclass(frozen=True)
class Acceptance:
    """The requirements of a base model.

    model: as the user wrote it, for messages; context: tokens, None: no limit
    """

    tokenizer: Tokenizing
    model: str
    context: int | None

    def refusal(self, example: Example, found: tuple[Encoded, ...] | Finding) -> Finding | None:
        """The reason why the trainer cannot use an example; None if it can.

        found: what the tokenizer made of the example
        """
        if isinstance(found, Finding):
            return found
        longest = max(found, key=lambda encoded: len(encoded.tokens))
        if self.context is None or len(longest.tokens) <= self.context:
            return None
        prompt, completion = longest.roles.count(PROMPT), longest.roles.count(COMPLETION)
        return Finding(
            TOO_LONG,
            f"{len(longest.tokens):,} tokens (prompt {prompt:,}, completion {completion:,}) are "
            f"more than {self.context:,}, the context length of {self.model}",
            example.line,
        )

    def check_vocabulary(self, highest: int) -> None:
        """Raise BaseModelError if the model has no embedding for the highest token."""
        vocabulary = self.tokenizer.vocabulary
        if vocabulary is not None and highest >= vocabulary:
            problem = (
                f"its tokenizer makes token {highest:,}, but its config.json has a vocabulary of "
                f"{vocabulary:,}"
            )
            raise BaseModelError(failures.unusable_model(self.model, problem))
