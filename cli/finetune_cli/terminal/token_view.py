"""Training examples token by token: what the model reads, what it learns to write, what stops it.

Pure: everything becomes lines of styled texts, one after the other, so that a long conversation
appears at once. With colors, a background marks each token; without them, a bar follows it, and the
label of its role is on every line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_data.read.examples import COMPLETION, NO_LOSS, PROMPT, Conversation
from finetune_data.read.findings import counted, shown
from finetune_data.tokenize.spans import (
    count_roles,
    describe_how,
    describe_split,
    find_ends,
    summarize_ends,
    visible,
)

if TYPE_CHECKING:
    from finetune_data.read.examples import Example
    from finetune_data.tokenize.encoded import Encoded, TurnEnd

ROLES = {NO_LOSS: "start", PROMPT: "prompt", COMPLETION: "completion"}  # in output for programs
CONTEXT, LEARNED, END = "context", "learned", "end"  # the labels for people
BAR = "│"
GUTTER = 9  # characters of the column with the labels
LEAST_ROOM = 20  # characters for tokens, however narrow the terminal is
AT_ONCE = 500  # tokens whose texts are looked up together

# Foreground and background are both set, so that they are readable on any terminal. Tokens next to
# each other have different backgrounds.
STYLES = {
    f"{CONTEXT}0": "grey66 on grey15",
    f"{CONTEXT}1": "grey66 on grey23",
    f"{LEARNED}0": "bold white on dark_green",
    f"{LEARNED}1": "bold white on green4",
    f"{END}0": "bold black on gold1",
    f"{END}1": "bold black on gold1",
    CONTEXT: "dim",
    LEARNED: "bold green",
    END: "bold yellow",
    "heading": "bold",
    "note": "dim",
    "": "",
}

Segment = tuple[str, str]  # a text and the name of its style
Line = list[Segment]
Names = Callable[[Sequence[int]], list[str]]  # the text of each token


@dataclass(frozen=True)
class Canvas:
    """The room for a line, in columns of the terminal."""

    width: int = 80
    has_color: bool = False

    @property
    def room(self) -> int:
        """The columns for tokens."""
        return max(LEAST_ROOM, self.width - GUTTER)


class ShownToken(NamedTuple):
    """A token of an example."""

    id: int
    text: str
    role: int
    end: TurnEnd | None  # if the token ends an answer

    @property
    def label(self) -> str:
        if self.end is not None:
            return END
        return LEARNED if self.role == COMPLETION else CONTEXT


def legend(canvas: Canvas) -> Line:
    """What the labels and marks mean."""
    line: Line = [
        (CONTEXT, f"{CONTEXT}0" if canvas.has_color else ""),
        (": read, ", ""),
        (LEARNED, f"{LEARNED}0" if canvas.has_color else ""),
        (": to write, ", ""),
        (END, f"{END}0" if canvas.has_color else ""),
        (": to stop, ↵: new line", ""),
    ]
    return line if canvas.has_color else [*line, (f", {BAR}: next token", "")]


def describe(example: Example, place: str) -> str:
    """The heading of an example: its place, if it has one, and its kind."""
    if isinstance(example, Conversation):
        what = f"a chat with {counted(len(example.messages), 'message')}"
        if example.tools:
            what += f" and {counted(len(example.tools), 'tool')}"
    else:
        what = "a prompt and its completion" if example.prompt else "a completion"
    return f"{place}: {what}" if place else what


def view(
    heading: str, examples: Sequence[Encoded], names: Names, canvas: Canvas, *, is_chat: bool
) -> Iterator[Line]:
    """The training examples of one row or one conversation, with a line about each."""
    if len(examples) > 1:
        reason = describe_split({end.how for example in examples for end in example.endings})
        heading += f"; {len(examples)} training examples, because {reason}"
    yield from _wrapped(heading, canvas.width, "heading")
    for number, example in enumerate(examples, 1):
        yield []
        if len(examples) > 1:
            yield [(f"Example {number} of {len(examples)}", "heading")]
        yield from _block(shown_tokens(example, names), canvas, is_chat=is_chat)
        yield []
        yield from _wrapped(summary(example, names, is_chat=is_chat), canvas.width)
    yield []


def shown_tokens(example: Encoded, names: Names) -> Iterator[ShownToken]:
    """The tokens of an example with their texts, some hundred at a time."""
    ends = find_ends(example)
    pairs = iter(zip(example.tokens, example.roles, strict=True))
    at = 0
    while some := [*islice(pairs, AT_ONCE)]:
        texts = names([token for token, _ in some])
        for (token, role), text in zip(some, texts, strict=True):
            yield ShownToken(token, text, role, ends.get(at))
            at += 1


def summary(example: Encoded, names: Names, *, is_chat: bool) -> str:
    """`61 tokens: 44 context, 17 learned; "<|im_end|>" ends the turn (...)`."""
    context, learned = count_roles(example.roles)
    ends = []
    counts = summarize_ends(example.endings)
    for end, count in counts.items():
        noun = "turn" if is_chat else "completion"
        what = f"the {noun}" if len(example.endings) == 1 else counted(count, noun)
        [text] = names([end.token])
        ends.append(f"{shown(text)} ends {what} ({describe_how(end.how, is_chat=is_chat)})")
    return (
        f"{counted(len(example.tokens), 'token')}: {context:,} context, {learned:,} learned; "
        f"{', '.join(ends)}"
    )


def records(example: Encoded, names: Names, *, is_chat: bool) -> dict[str, Any]:
    """An example as an object for programs."""
    context, learned = count_roles(example.roles)
    ends = [
        {"id": end.token, "text": names([end.token])[0], "turns": count, "how": end.how}
        for end, count in summarize_ends(example.endings).items()
    ]
    return {
        "count": len(example.tokens),
        "context": context,
        "learned": learned,
        "ends": ends,
        "tokens": [record(token) for token in shown_tokens(example, names)],
    }


def record(token: ShownToken) -> dict[str, Any]:
    """A token as an object for programs; `end` is how its answer ends, or null."""
    return {
        "id": token.id,
        "text": token.text,
        "role": ROLES[token.role],
        "learned": token.role == COMPLETION,
        "end": token.end.how if token.end is not None else None,
    }


def _block(tokens: Iterator[ShownToken], canvas: Canvas, *, is_chat: bool) -> Iterator[Line]:
    """Lines that begin with a label. A line ends with a role, a line break, or the width."""
    writer = _LineWriter(canvas)
    for index, token in enumerate(tokens):
        yield from writer.add(token, index)
        if token.end is not None:
            note = describe_how(token.end.how, is_chat=is_chat)
            yield from writer.finish(note)
    yield from writer.finish()


class _LineWriter:
    """Collects the tokens of a line."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._line: Line = []
        self._used = 0
        self._label = ""  # of the current line
        self._labeled = ""  # of the lines so far

    def add(self, token: ShownToken, index: int) -> Iterator[Line]:
        """Add a token; yields the lines that are complete."""
        if token.label != self._label:
            yield from self.finish()
            self._label = token.label
        text = visible(token.text) or f"#{token.id}"
        bar = "" if self._canvas.has_color else BAR
        style = f"{token.label}{index % 2}" if self._canvas.has_color else ""
        columns = _columns(text + bar)
        if self._used and self._used + columns > self._canvas.room:
            yield from self.finish()
        for part in _parts(text + bar, self._canvas.room) if columns > self._canvas.room else ():
            self._line.append((part, style))
            yield from self.finish()
        if columns <= self._canvas.room:
            self._line.append((text + bar, style))
            self._used += columns
        if "\n" in token.text:
            yield from self.finish()

    def finish(self, note: str = "") -> Iterator[Line]:
        """End the line, with a note if there is room for it."""
        if not self._line:
            return
        is_repeated = self._canvas.has_color and self._labeled == self._label
        label = "" if is_repeated else self._label
        if self._canvas.has_color:
            margin = f"{label:<{GUTTER}}"
        else:
            margin = f"{label:<{GUTTER - len(BAR)}}{BAR}"  # which shows a space at the start
        line: Line = [(margin, self._label), *self._line]
        if note and self._used + len(note) + 2 <= self._canvas.room:
            line.append((f"  {note}", "note"))
        self._line, self._used, self._labeled = [], 0, self._label
        yield line


def _columns(text: str) -> int:
    """The width of a text on a terminal: some characters have two columns, and some none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _parts(text: str, room: int) -> Iterator[str]:
    """A text in parts of at most `room` columns."""
    from rich.cells import cell_len

    part, used = "", 0
    for character in text:
        columns = cell_len(character)
        if part and used + columns > room:
            yield part
            part, used = "", 0
        part += character
        used += columns
    yield part


def _wrapped(text: str, width: int, style: str = "") -> Iterator[Line]:
    """A sentence on lines of at most `width` columns. Its texts from files are printable."""
    from textwrap import wrap

    for line in wrap(text, max(width, LEAST_ROOM), break_on_hyphens=False):
        yield [(line, style)]
