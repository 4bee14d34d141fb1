"""The first training examples token by token, for the report: from the dataset's arrays."""

from collections.abc import Callable, Sequence

from finetune_data.read.examples import COMPLETION
from finetune_data.tokenize.dataset import TokenSplit
from finetune_data.tokenize.spans import count_roles, find_spans
from finetune_trainer.reporting.report_data import ExampleSpan, LearnedExample

EXAMPLES_SHOWN = 3
EXAMPLES_READ = 300  # to find these: an example has at most 99 repeats
TOKENS_SHOWN = 400  # of an example; the tokens in the middle of a longer one are left out
CHARACTERS_SHOWN = 200  # of a token; some tokens are hundreds of spaces

Names = Callable[[Sequence[int]], list[str]]  # the text of each token


def learned_examples(split: TokenSplit, names: Names) -> list[LearnedExample]:
    """The first examples of a split, each at its full length or without its middle.

    A repeat that follows its example, as in a training file with a weight, is left out.
    """
    found: list[LearnedExample] = []
    before = None
    for index in range(min(EXAMPLES_READ, len(split))):
        tokens = split.example(index)[0].tobytes()
        if tokens != before:
            found.append(_example(split, index, names))
        if len(found) == EXAMPLES_SHOWN:
            break
        before = tokens
    return found


def _example(split: TokenSplit, index: int, names: Names) -> LearnedExample:
    tokens, roles = split.example(index)
    all_roles = roles.tobytes()
    context, learned = count_roles(all_roles)
    head = tail = TOKENS_SHOWN // 2
    omitted = len(tokens) - head - tail
    if omitted <= 0:
        head, omitted = len(tokens), 0
    spans: list[ExampleSpan] = []
    for span in find_spans(all_roles):
        is_learned = span.role == COMPLETION
        end = span.stop - 1 if is_learned else span.stop
        for kind, start, stop in (
            ("learned" if is_learned else "context", span.start, end),
            ("end", end, span.stop),
        ):
            before, after = min(stop, head), max(start, head + omitted)
            if start < before:
                spans.append(_span(kind, tokens[start:before].tolist(), names))
            if omitted and start <= head < stop:
                spans.append(ExampleSpan(kind="omitted", count=omitted))
            if omitted and after < stop:
                spans.append(_span(kind, tokens[after:stop].tolist(), names))
    return LearnedExample(context=context, learned=learned, spans=spans)


def _span(kind: str, tokens: list[int], names: Names) -> ExampleSpan:
    texts = [text[:CHARACTERS_SHOWN] for text in names(tokens)]
    return ExampleSpan(kind=kind, tokens=texts, count=len(tokens))
