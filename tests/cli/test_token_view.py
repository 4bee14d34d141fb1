"""Examples token by token at 80 columns, with and without color."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_cli.terminal import token_view
from finetune_cli.terminal.token_view import Canvas, Line
from finetune_data.read.examples import Conversation, Row
from finetune_data.tokenize.encoded import Encoded, TurnEnd

END = TurnEnd(3, "template")
WORDS = [
    "<|im_start|>",
    "user",
    "\n",
    "<|im_end|>",
    "assistant",
    "Where",
    " is",
    " it",
    "Here",
    ".",
]


def names(tokens: Sequence[int]) -> list[str]:
    return [WORDS[token] if token < len(WORDS) else f" w{token}" for token in tokens]


def example(*parts: tuple[str, Sequence[int]], ends: Sequence[TurnEnd] = (END,)) -> Encoded:
    """parts: "c" (context) or "l" (learned), and tokens."""
    tokens = [token for _, some in parts for token in some]
    roles = b"".join((b"\2" if role == "l" else b"\1") * len(some) for role, some in parts)
    return Encoded(tokens, roles, tuple(ends))


SHORT = example(("c", [0, 1, 2, 5, 6, 7, 3, 2, 0, 4, 2]), ("l", [8, 9, 3]))


def text(lines: Sequence[Line]) -> str:
    return "\n".join("".join(part for part, _ in line).rstrip(" ") for line in lines)


def view(*examples: Encoded, width: int = 80, has_color: bool = False) -> list[Line]:
    canvas = Canvas(width, has_color=has_color)
    return [*token_view.view("a.jsonl, line 1: a chat", examples, names, canvas, is_chat=True)]


def test_without_colors_every_line_has_its_role_and_bars_follow_tokens() -> None:
    assert text(view(SHORT)) == (
        "a.jsonl, line 1: a chat\n"
        "\n"
        "context │<|im_start|>│user│↵│\n"
        "context │Where│ is│ it│<|im_end|>│↵│\n"
        "context │<|im_start|>│assistant│↵│\n"
        "learned │Here│.│\n"
        "end     │<|im_end|>│  written by the template\n"
        "\n"
        '14 tokens: 11 context, 3 learned; "<|im_end|>" ends the turn (written by the\n'
        "template)\n"
    )


def test_with_colors_backgrounds_mark_the_tokens_and_each_span_has_one_label() -> None:
    lines = view(SHORT, has_color=True)
    assert text(lines[2:7]) == (
        "context  <|im_start|>user↵\n"
        "         Where is it<|im_end|>↵\n"
        "         <|im_start|>assistant↵\n"
        "learned  Here.\n"
        "end      <|im_end|>  written by the template"
    )
    assert lines[2][1:] == [("<|im_start|>", "context0"), ("user", "context1"), ("↵", "context0")]
    assert lines[5] == [("learned  ", "learned"), ("Here", "learned1"), (".", "learned0")]
    assert lines[6][1] == ("<|im_end|>", "end1")


def test_several_examples_say_why() -> None:
    found = text(view(SHORT, SHORT))
    assert (
        "2 training examples, because the chat template writes\nearlier turns differently" in found
    )
    assert ("Example 1 of 2\n" in found, "Example 2 of 2\n" in found) == (True, True)
    added = example(("c", [5]), ("l", [8, 3]), ends=[TurnEnd(3, "added")])
    assert "writes no token that ends a turn" in " ".join(text(view(added, added)).split())


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ((END, END), '"<|im_end|>" ends 2 turns (written by the template)'),
        (
            (TurnEnd(3, "following"), TurnEnd(3, "added")),
            '"<|im_end|>" ends 1 turn (written by the template only before another message), '
            '"<|im_end|>" ends 1 turn (added, because the template writes none)',
        ),
    ],
)
def test_the_summary_names_what_ends_turns_and_how(ends: list[TurnEnd], sentence: str) -> None:
    made = example(("c", [5]), ("l", [8, 3]), ("c", [2, 5]), ("l", [9, 3]), ends=ends)
    found = token_view.summary(made, names, is_chat=True)
    assert found == f"7 tokens: 3 context, 4 learned; {sentence}"


def test_a_row_has_no_template() -> None:
    row = Encoded([0, 5, 8, 3], b"\0\1\2\2", (TurnEnd(3, "added"),))
    assert token_view.summary(row, names, is_chat=False) == (
        '4 tokens: 2 context, 2 learned; "<|im_end|>" ends the completion (added after each '
        "completion)"
    )
    roles = [token_view.ROLES[token.role] for token in token_view.shown_tokens(row, names)]
    assert roles == ["start", "prompt", "completion", "completion"]


def test_answers_next_to_each_other_end_where_their_end_tokens_are() -> None:
    made = example(("c", [5]), ("l", [8, 3, 9, 3]), ends=[END, END])
    ends = [token.end for token in token_view.shown_tokens(made, names)]
    assert ends == [None, None, END, None, END]


def test_descriptions() -> None:
    chat = Conversation(3, [{"role": "user", "content": "q"}], [{}])
    assert token_view.describe(chat, "a.jsonl, line 3") == (
        "a.jsonl, line 3: a chat with 1 message and 1 tool"
    )
    assert token_view.describe(Row(1, "a", "b"), "") == "a prompt and its completion"
    assert token_view.describe(Row(1, "", "b"), "") == "a completion"


@given(
    st.lists(st.sampled_from([*range(10), 500, 77777]), min_size=1, max_size=60),
    st.integers(10, 100),
    st.booleans(),
    st.text(st.sampled_from("a字é👍🏽\u0301\u200b\x1b\n\t "), max_size=90),
)
def test_lines_fit_and_nothing_is_lost(
    tokens: list[int], width: int, has_color: bool, odd: str
) -> None:
    from rich.cells import cell_len

    def with_odd(found: Sequence[int]) -> list[str]:
        return [odd if token == 500 else names([token])[0] for token in found]

    made = example(("c", tokens), ("l", [*tokens, 3]))
    canvas = Canvas(width, has_color=has_color)
    lines = [*token_view._block(token_view.shown_tokens(made, with_odd), canvas, is_chat=True)]
    assert max(cell_len(text([line])) for line in lines) <= max(width, 29)
    bar = "" if has_color else "│"
    shown = "".join(part for line in lines for part, style in line[1:] if style != "note")
    expected = [
        token_view.visible(it) or f"#{token}"
        for token, it in zip(made.tokens, with_odd(made.tokens), strict=True)
    ]
    assert shown == "".join(f"{it}{bar}" for it in expected)
    assert shown.isprintable()


def test_a_long_conversation_is_shown_as_it_is_read() -> None:
    """Texts are looked up for some hundred tokens at a time, and lines come at once."""
    looked_up: list[int] = []

    def recorded(tokens: Sequence[int]) -> list[str]:
        looked_up.append(len(tokens))
        return names(tokens)

    made = example(("c", [5, 6, 2] * 10_000), ("l", [8, 3]))
    lines = token_view.view("a chat", [made], recorded, Canvas(), is_chat=True)
    assert [next(lines) for _ in range(3)][-1][1] == ("Where│", "")
    assert looked_up == [token_view.AT_ONCE]
    assert len([*lines]) > 10_000
