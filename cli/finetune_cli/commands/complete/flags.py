"""The flags of `finetune complete`, spelled as in OpenAI's completions API and command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from finetune_cli.cluster.target import ClusterTarget

Function = TypeVar("Function", bound=Callable[..., Any])

ROLES = click.Choice(["system", "user", "assistant"])
DEFAULT_TOKENS, DEFAULT_CHAT_TOKENS = 16, 256


@dataclass(frozen=True)
class CompleteOptions:
    """The command line of `finetune complete`."""

    model: str | None
    old_model: str | None
    prompt: str | None
    as_is: bool
    messages: tuple[tuple[str, str], ...]
    max_tokens: int | None
    temperature: float
    top_p: float
    stops: tuple[str, ...]
    logprobs: int | None
    presence_penalty: float
    frequency_penalty: float
    count: int
    best_of: int | None
    seed: int | None
    base: str | None
    cpu: bool
    output: str | None
    target: ClusterTarget

    @property
    def sample_count(self) -> int:
        """The number of completions to sample."""
        return self.best_of or self.count

    @property
    def is_streamed(self) -> bool:
        """Whether the text is printed token by token."""
        return self.output is None and self.sample_count == 1


def _number(flag: str, low: float, high: float, default: float, text: str) -> Any:
    """An option for a number with a range and a default."""
    kind = click.FloatRange(low, high)
    text = f"{text}  [default: {default:g}]"
    return click.option(*flag.split("/"), type=kind, default=default, metavar="NUMBER", help=text)


_OPTIONS = (
    click.option(
        "-p",
        "--prompt",
        metavar="TEXT",
        help="Prompt.  [default: stdin, without its last line break]",
    ),
    click.option(
        "--as-is",
        is_flag=True,
        help="Do not append the separator that ended all training prompts.",
    ),
    click.option(
        "-g",
        "--message",
        "messages",
        type=(ROLES, str),
        multiple=True,
        metavar="ROLE TEXT",
        help="Chat message, in place of a prompt, for chat models. Repeat it for a conversation.",
    ),
    click.option(
        "-M",
        "--max-tokens",
        type=click.IntRange(1),
        metavar="COUNT",
        help="Maximum number of generated tokens.  "
        f"[default: {DEFAULT_TOKENS}; with --message: {DEFAULT_CHAT_TOKENS}]",
    ),
    _number(
        "-t/--temperature", 0, 2, 1, "Sampling temperature; 0 always selects the likeliest token."
    ),
    _number("-P/--top-p", 0, 1, 1, "Sample from the likeliest tokens with this total probability."),
    click.option(
        "--stop",
        "stops",
        multiple=True,
        metavar="TEXT",
        help="End the completion before this text. May be repeated.",
    ),
    click.option(
        "--logprobs",
        type=click.IntRange(0, 20),
        metavar="COUNT",
        help="Print the log probability of each token and of this many alternatives.",
    ),
    _number("--presence-penalty", -2, 2, 0, "Penalize tokens that already appear in the output."),
    _number(
        "--frequency-penalty", -2, 2, 0, "Penalize tokens for each time they appear in the output."
    ),
    click.option(
        "--n",
        "count",
        type=click.IntRange(1, 128),
        default=1,
        metavar="COUNT",
        help="Number of completions.  [default: 1]",
    ),
    click.option(
        "--best-of",
        type=click.IntRange(1, 128),
        metavar="COUNT",
        help="Sample this many completions and print the --n likeliest.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), metavar="NUMBER", help="Seed for reproducible sampling."
    ),
    click.option(
        "--base", metavar="MODEL", help="Base model for a folder that contains only an adapter."
    ),
    click.option("--cpu", is_flag=True, help="Use the CPU even if there are GPUs."),
)


def completion_flags(function: Function) -> Function:
    """Add all flags, in the order of the help."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
