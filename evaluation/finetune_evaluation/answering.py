"""Asks a model on this machine, greedily: the same files and rows always give the same answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from finetune_data.read.examples import COMPLETION, Row
from finetune_data.read.findings import Finding
from finetune_data.tokenize.tokenizer import Tokenizing
from finetune_evaluation.grading import Grade
from finetune_evaluation.metrics import Graded
from finetune_evaluation.rows import Question
from finetune_serving.completion import prompts
from finetune_serving.completion.generation import Choice, Model, Request, complete
from finetune_serving.completion.local_model import LocalModel
from finetune_serving.completion.sampling import Sampling

GREEDY = Sampling(temperature=0)
LEAST_TOKENS = 16


def default_tokens(tokenizer: Tokenizing, questions: Sequence[Question]) -> int:
    """A quarter more tokens than the longest reference has, and at least LEAST_TOKENS."""
    rows = [Row(1, "?", question.reference or " ") for question in questions]
    longest = 0
    for found in tokenizer.encode(rows):
        assert not isinstance(found, Finding)  # only chats become findings
        longest = max(longest, found[0].roles.count(COMPLETION))
    return max(LEAST_TOKENS, longest + longest // 4)


def answers(
    model: Model,
    tokenizer: Tokenizing,
    source: LocalModel,
    questions: Sequence[Question],
    grades: Mapping[str, Grade],
    *,
    max_tokens: int,
    context: int | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Graded]:
    """The graded answer to each question, in order.

    context: of the model, in tokens; None: unknown. A prompt that leaves no room has an empty
    answer. Raises RefusedMessagesError for messages that the chat template refuses.
    """
    for number, question in enumerate(questions):
        prompt = _encode(tokenizer, source, question)
        room = max_tokens if context is None else min(max_tokens, context - len(prompt.tokens))
        choice = Choice("", [], "length", [])
        if room >= 1:
            request = Request(prompt.tokens, prompt.end_tokens, room, sampling=GREEDY)
            choice = complete(model, request, tokenizer.decode, np.random.default_rng(0))
        marks = {name: grade(choice.text, question.reference) for name, grade in grades.items()}
        yield Graded(
            question.line,
            choice.text,
            question.reference,
            _probability(choice) if room >= 1 else 0.0,
            choice.finish_reason == "stop",
            marks,
        )
        progress(number + 1, len(questions))


def _encode(tokenizer: Tokenizing, source: LocalModel, question: Question) -> prompts.Prompt:
    if isinstance(question.prompt, str):
        return prompts.of_text(tokenizer, question.prompt, source)
    return prompts.of_messages(tokenizer, question.prompt, source, question.tools)


def _probability(choice: Choice) -> float:
    """The probability of all tokens of the answer, with the token that ends it."""
    logprobs = [found.logprob for found in choice.sampled]
    if choice.end_logprob is not None:
        logprobs.append(choice.end_logprob)
    return math.exp(sum(logprobs))
