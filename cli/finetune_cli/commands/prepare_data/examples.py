"""Shows the first examples token by token, as a fine-tune trains them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING

from finetune_cli.terminal import token_view
from finetune_data.read.examples import Conversation
from finetune_data.read.findings import Finding
from finetune_data.rewrite.rewriting import examples_after

if TYPE_CHECKING:
    from finetune_cli.commands.prepare_data.screen import FindingsScreen
    from finetune_data.lint.fixes import Fix
    from finetune_data.read.reader import Reader
    from finetune_data.tokenize.acceptance import Acceptance


def show_examples(
    screen: FindingsScreen,
    readers: Sequence[Reader],
    fixes: Sequence[Fix],
    acceptance: Acceptance,
    count: int,
) -> None:
    """Print up to `count` examples with the accepted changes; a refused one with its finding."""
    names = acceptance.tokenizer.readable_texts
    canvas = token_view.Canvas(screen.console.width, has_color=screen.has_color)
    screen.paint([[], token_view.legend(canvas), []], token_view.STYLES)
    for reader, example in islice(examples_after(readers, fixes), count):
        [found] = acceptance.tokenizer.encode([example])
        place = f"{PurePath(reader.source.name).name}, line {example.line}"
        refusal = acceptance.refusal(example, found)
        if not isinstance(found, Finding):
            heading = token_view.describe(example, place)
            is_chat = isinstance(example, Conversation)
            lines = token_view.view(heading, found, names, canvas, is_chat=is_chat)
            screen.paint(lines, token_view.STYLES)
        if refusal is not None:
            screen.say(f"{place}: {refusal.message}", "red")
            screen.say()
