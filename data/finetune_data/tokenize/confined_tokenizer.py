"""A base model's tokenizer in a confined process, for commands on a user's machine.

The prepare pod is confined as a whole; a command must not be, because it talks to a user.
Examples go to the process as JSON, and tokens come back as JSON and plain numbers, never as pickled
objects.
"""

from __future__ import annotations

import json
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from finetune_api.outcome import Failure
from finetune_data import failures
from finetune_data.confined.child import Child, LostError
from finetune_data.confined.sections import set_place
from finetune_data.errors import BaseModelError, DataError
from finetune_data.read.examples import Conversation, Example, Row
from finetune_data.read.findings import Finding
from finetune_data.tokenize.encoded import Encoded, TurnEnd
from finetune_data.tokenize.loading import load_tokenizer
from finetune_data.tokenize.tokenizer import ExampleTokenizer

DATA = "the data"  # the file, which the process does not know
_TOKEN_BYTES = array("i").itemsize


class ConfinedTokenizer:
    """The methods of an ExampleTokenizer that commands use. Each call can raise BaseModelError."""

    def __init__(self, folder: Path, name: str) -> None:
        """Load the tokenizer of the base model `name` in `folder`. Raises BaseModelError."""
        self._name = name
        self._lock = threading.Lock()  # an answer belongs to the last question
        self._child = Child(lambda link: _serve(link, folder, name), is_quiet=True)
        ready, _ = self._answer()
        self.eos: int = ready["eos"]
        self.vocabulary: int | None = ready["vocabulary"]

    def encode(self, examples: Sequence[Example]) -> list[tuple[Encoded, ...] | Finding]:
        """The training examples of each example, or why it has none. Raises DataError."""
        found, data = self._ask("encode", [_as_json(example) for example in examples])
        place = 0
        results: list[tuple[Encoded, ...] | Finding] = []
        for item in found:
            if isinstance(item, dict):
                results.append(Finding(**item))
                continue
            made = []
            for count, endings in item:
                tokens = array("i")
                middle, end = place + count * _TOKEN_BYTES, place + count * (_TOKEN_BYTES + 1)
                tokens.frombytes(data[place:middle])
                ends = tuple(TurnEnd(*ending) for ending in endings)
                made.append(Encoded(tokens, data[middle:end], ends))
                place = end
            results.append(tuple(made))
        return results

    def prompt(self, chat: Conversation) -> list[int] | Finding:
        """The tokens of the generation prompt; a Finding if the template refuses the messages."""
        found, _ = self._ask("prompt", [_as_json(chat)])
        return Finding(**found) if isinstance(found, dict) else list(found)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._ask("decode", [int(token) for token in tokens])[0])

    def texts(self, tokens: Sequence[int]) -> list[str]:
        return list(self._ask("texts", [int(token) for token in tokens])[0])

    def readable_texts(self, tokens: Sequence[int]) -> list[str]:
        return list(self._ask("readable_texts", [int(token) for token in tokens])[0])

    def _ask(self, method: str, arguments: list[Any]) -> tuple[Any, bytes]:
        with self._lock:
            self._child.send(json.dumps([method, arguments]).encode())
            return self._answer()

    def _answer(self) -> tuple[Any, bytes]:
        try:
            head, data = json.loads(self._child.receive()), self._child.receive()
        except LostError as error:
            problem = f"the process of its tokenizer ended with exit code {error.exit_code}"
            raise BaseModelError(failures.unusable_model(self._name, problem)) from error
        if "failure" in head:
            kind = DataError if head["kind"] == "data" else BaseModelError
            raise kind(Failure.model_validate(head["failure"]))
        return head["result"], data


def _serve(link: Connection, folder: Path, name: str) -> None:
    """Answer calls until the connection ends."""
    tokenizer: ExampleTokenizer | None = None

    def load() -> tuple[Any, bytes]:
        nonlocal tokenizer
        tokenizer = load_tokenizer(folder, name)
        return {"eos": tokenizer.eos, "vocabulary": tokenizer.vocabulary}, b""

    _reply(link, load)
    while tokenizer is not None:
        try:
            method, arguments = json.loads(link.recv_bytes())
        except EOFError:
            return
        loaded = tokenizer
        set_place(DATA if method == "encode" else "")
        _reply(link, lambda: _call(loaded, method, arguments))  # noqa: B023 - called at once


def _reply(link: Connection, work: Callable[[], tuple[Any, bytes]]) -> None:
    try:
        result, data = work()
        head: dict[str, Any] = {"result": result}
    except (BaseModelError, DataError) as error:
        kind = "data" if isinstance(error, DataError) else "model"
        head, data = {"failure": error.failure.to_dict(), "kind": kind}, b""
    link.send_bytes(json.dumps(head).encode())
    link.send_bytes(data)


def _call(tokenizer: ExampleTokenizer, method: str, arguments: list[Any]) -> tuple[Any, bytes]:
    if method == "encode":
        return _packed(tokenizer.encode([_example(value) for value in arguments]))
    if method == "prompt":
        chat = _example(arguments[0])
        assert isinstance(chat, Conversation)
        found = tokenizer.prompt(chat)
        return asdict(found) if isinstance(found, Finding) else list(found), b""
    calls: dict[str, Callable[[Sequence[int]], Any]] = {
        "decode": tokenizer.decode,
        "texts": tokenizer.texts,
        "readable_texts": tokenizer.readable_texts,
    }
    return calls[method](arguments), b""


def _packed(found: list[tuple[Encoded, ...] | Finding]) -> tuple[list[Any], bytes]:
    """The heads of all results, and the tokens and roles of all examples one after the other."""
    heads: list[Any] = []
    data = bytearray()
    for item in found:
        if isinstance(item, Finding):
            heads.append(asdict(item))
            continue
        heads.append([[len(example.tokens), example.endings] for example in item])
        for example in item:
            data += array("i", example.tokens).tobytes() + example.roles
    return heads, bytes(data)


def _as_json(example: Example) -> list[Any]:
    kind = "row" if isinstance(example, Row) else "chat"
    return [kind, *example[:3]]


def _example(value: list[Any]) -> Example:
    kind, *fields = value
    return Row(*fields) if kind == "row" else Conversation(*fields)
