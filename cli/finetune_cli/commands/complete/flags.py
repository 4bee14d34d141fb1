"""Flags of `finetune complete`, spelt as the old completions API and its tool spelt them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

ROLES = click.Choice(["system", "user", "assistant"])
DEFAULT_TOKENS, DEFAULT_CHAT_TOKENS = 16, 256

_OPTIONS = (
    click.option(
        "-p", "--prompt", metavar="TEXT", help="[default: stdin, without its last line end]"
    ),
    click.option(
        "--as-is",
        is_flag=True,
        help="Do not add the separator that all prompts of the training ended with.",
    ),
    click.option(
        "-g",
        "--message",
        "messages",
        type=(ROLES, str),
        multiple=True,
        metavar="ROLE TEXT",
        help="Instead of a prompt, of models that know chats; several make a conversation.",
    ),
    click.option(
        "-M",
        "--max-tokens",
        type=click.IntRange(1),
        metavar="COUNT",
        help=f"[default: {DEFAULT_TOKENS}, of messages {DEFAULT_CHAT_TOKENS}]",
    ),
    click.option(
        "-t",
        "--temperature",
        type=click.FloatRange(0, 2),
        default=1.0,
        metavar="NUMBER",
        help="0 takes the likeliest token each time.  [default: 1]",
    ),
    click.option(
        "-P",
        "--top-p",
        type=click.FloatRange(0, 1),
        default=1.0,
        metavar="SHARE",
        help="Draw from the likeliest tokens that have this share together.  [default: 1]",
    ),
    click.option(
        "--stop",
        "stops",
        multiple=True,
        metavar="TEXT",
        help="A completion ends before this text; may be given several times.",
    ),
    click.option(
        "--logprobs",
        type=click.IntRange(0, 20),
        metavar="COUNT",
        help="Tell each token's log-probability, and the likeliest ones at its place.",
    ),
    click.option(
        "--presence-penalty",
        type=click.FloatRange(-2, 2),
        default=0.0,
        metavar="NUMBER",
        help="Off the logits of tokens that were said.  [default: 0]",
    ),
    click.option(
        "--frequency-penalty",
        type=click.FloatRange(-2, 2),
        default=0.0,
        metavar="NUMBER",
        help="The same for each time that they were said.  [default: 0]",
    ),
    click.option(
        "--n",
        "count",
        type=click.IntRange(1, 128),
        default=1,
        metavar="COUNT",
        help="So many completions.  [default: 1]",
    ),
    click.option(
        "--best-of",
        type=click.IntRange(1, 128),
        metavar="COUNT",
        help="Draw so many, and tell the --n likeliest.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), metavar="NUMBER", help="The same draws each time."
    ),
    click.option("--base", metavar="MODEL", help="What an adapter alone is added to."),
    click.option("--cpu", is_flag=True, help="Leave the GPUs alone."),
)


def completion_flags(function: Function) -> Function:
    """All of them, in the order of the help."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
