"""Compares what the product learns of a conversation with the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from finetune_data.read.examples import COMPLETION, NO_LOSS, PROMPT
from finetune_data.read.findings import Finding
from finetune_data.tokenize.encoded import Encoded, TurnEnd
from tests.data.gallery.conversations import Chat
from tests.data.gallery.oracle import Oracle, Turn


class Learned(NamedTuple):
    """A run of learned tokens, and all tokens before it."""

    context: list[int]
    tokens: list[int]
    end: TurnEnd


def learned_runs(examples: Sequence[Encoded]) -> Iterator[Learned]:
    for example in examples:
        assert len(example.tokens) == len(example.roles)
        assert set(example.roles) <= {NO_LOSS, PROMPT, COMPLETION}
        runs, start = [], None
        for at, role in enumerate([*example.roles, NO_LOSS]):
            if role == COMPLETION and start is None:
                start = at
            elif role != COMPLETION and start is not None:
                runs.append((start, at))
                start = None
        assert len(runs) == len(example.endings)
        for (first, after), end in zip(runs, example.endings, strict=True):
            yield Learned([*example.tokens[:first]], [*example.tokens[first:after]], end)


def check(oracle: Oracle, chat: Chat, found: tuple[Encoded, ...] | Finding) -> None:
    """Every learned turn is what transformers renders, or the refusal is a clear sentence."""
    if isinstance(found, Finding):
        check_refusal(found)
        return
    turns = [
        index
        for index, message in enumerate(chat.messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    runs = list(learned_runs(found))
    assert len(runs) == len(turns)  # each turn once, and nothing else
    for index, run in zip(turns, runs, strict=True):
        check_turn(oracle, oracle.turn(chat, index), run)


def check_turn(oracle: Oracle, turn: Turn, run: Learned) -> None:
    assert run.context == turn.context
    assert run.tokens[-1] == run.end.token
    assert run.end == TurnEnd(oracle.token(turn.end.text), turn.end.how)
    assert run.end.token in oracle.stops
    assert run.tokens[:-1].count(run.end.token) == 0
    if turn.whole is not None:
        assert [*run.context, *run.tokens] == turn.whole
        return
    written = oracle.decode([*run.context, *run.tokens])
    expected = oracle.decode(turn.context) + turn.text
    assert written == expected or written == oracle.again(expected)


def check_refusal(found: Finding, *words: str) -> None:
    assert found.code == "chat-template"
    assert found.line == 1
    assert len(found.message) > 20
    for word in ("Traceback", "Undefined", "None", *()):
        assert word not in found.message
    for word in words:
        assert word in found.message
