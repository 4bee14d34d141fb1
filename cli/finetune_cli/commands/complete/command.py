"""`finetune complete`: what a model says, on this machine's GPU or CPU."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.complete.flags import (
    DEFAULT_CHAT_TOKENS,
    DEFAULT_TOKENS,
    completion_flags,
)
from finetune_cli.machine import require_packages
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import printable
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from finetune_cli.commands.complete.generation import Choice, Request
    from finetune_cli.commands.complete.prompts import Prompt
    from finetune_cli.commands.complete.sources import Source
    from finetune_data.tokenize.tokenizer import ExampleTokenizer

NEEDED = ("torch", "transformers", "peft", "finetune_trainer")
LARGEST_PROMPT = 16 * 1024 * 1024  # bytes of stdin


@click.command()
@click.argument("model", required=False)
@click.option("-m", "--model", "old_model", metavar="MODEL", hidden=True)
@completion_flags
@output_flag
@cluster_flags
def command(
    *,
    model: str | None,
    old_model: str | None,
    prompt: str | None,
    as_is: bool,
    messages: Sequence[tuple[str, str]],
    max_tokens: int | None,
    temperature: float,
    top_p: float,
    stops: Sequence[str],
    logprobs: int | None,
    presence_penalty: float,
    frequency_penalty: float,
    count: int,
    best_of: int | None,
    seed: int | None,
    base: str | None,
    cpu: bool,
    output: str | None,
    target: ClusterTarget,
) -> None:
    """Let a fine-tuned model answer, on this machine.

    MODEL is a folder (of `models pull` or `run`), a fine-tuned model's name or its address in S3;
    what is fetched stays in ~/.cache/finetune/models. The prompt is encoded as it was in training.
    Flags and their defaults are the old completions API's.
    """
    model = model or old_model
    if not model:
        raise click.UsageError("say which model: MODEL is missing")
    if best_of is not None and best_of < count:
        raise CommandError("--best-of must be at least --n", code=EXIT_USAGE)
    if "" in stops:
        raise CommandError("--stop must not be empty", code=EXIT_USAGE)
    if messages and prompt is not None:
        raise CommandError("give --prompt or --message, not both", code=EXIT_USAGE)
    require_packages(NEEDED, "completing on this machine")
    screen = Screen()
    if not messages and prompt is None:
        prompt = _from_stdin(screen)
    elif "\\n" in (prompt or ""):
        screen.note(r"The prompt has \n as two characters; in bash, $'...\n' holds a line end.")
    from finetune_cli.commands.complete.generation import Request
    from finetune_cli.commands.complete.sampling import Sampling
    from finetune_cli.commands.complete.sources import find_source

    source = find_source(model, base, target, screen)
    if prompt is not None and not as_is:
        prompt = _separated(prompt, source, screen)
    tokenizer, found, room = _encode(source, prompt, messages)
    request = Request(
        prompt=found.tokens,
        ends=found.ends,
        max_tokens=_limit(max_tokens, room, is_chat=bool(messages)),
        stops=stops,
        sampling=Sampling(temperature, top_p, presence_penalty, frequency_penalty),
        logprobs=logprobs,
    )
    is_streamed = output is None and (best_of or count) == 1
    sampled = _sample(
        source,
        request,
        tokenizer.decode,
        best_of or count,
        seed,
        cpu=cpu,
        tell=_print if is_streamed else lambda text: None,
    )
    choices = sampled
    if best_of is not None:
        choices = sorted(sampled, key=lambda choice: -choice.mean_logprob)[:count]
    if output:
        answer = _as_object(source, choices, sampled, request, tokenizer, is_chat=bool(messages))
        show_objects(answer, output)
        return
    _show(screen, choices, tokenizer, logprobs=logprobs, is_told=is_streamed)


def _from_stdin(screen: Screen) -> str:
    if sys.stdin.isatty():
        screen.note("Type the prompt; Ctrl-D ends it.")
    data = sys.stdin.buffer.read(LARGEST_PROMPT + 1)
    if len(data) > LARGEST_PROMPT:
        raise CommandError("the prompt is larger than 16 MiB", "give a part of it")
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise CommandError(f"the prompt is not UTF-8: byte {error.start + 1}") from error


def _separated(prompt: str, source: Source, screen: Screen) -> str:
    """With the separator behind it that the model has learned to answer to."""
    from finetune_cli.commands.complete.prompts import with_separator

    found = with_separator(prompt, source.separator)
    if found != prompt:
        added = json.dumps(source.separator, ensure_ascii=False)
        screen.note(
            f"Added the separator {added} that every prompt of the training ended with "
            "(--as-is leaves the prompt alone)."
        )
    return found


def _encode(
    source: Source, prompt: str | None, messages: Sequence[tuple[str, str]]
) -> tuple[ExampleTokenizer, Prompt, int | None]:
    """The tokenizer, the prompt, and how many tokens have room behind it; None: nobody knows."""
    from finetune_cli.commands.complete import prompts
    from finetune_data.tokenize.tokenizer import load_tokenizer, model_positions

    tokenizer = load_tokenizer(source.folder, source.name)
    if messages:
        found = prompts.of_messages(tokenizer, messages, source.folder)
    else:
        found = prompts.of_text(tokenizer, prompt or "", source.folder)
    context = model_positions(source.folder)
    room = None if context is None else context - len(found.tokens)
    if room is not None and room < 1:
        raise CommandError(
            f"the prompt has {len(found.tokens):,} tokens, and the model's context is {context:,}",
            "shorten it",
        )
    return tokenizer, found, room


def _limit(asked: int | None, room: int | None, *, is_chat: bool) -> int:
    if asked is None:
        default = DEFAULT_CHAT_TOKENS if is_chat else DEFAULT_TOKENS
        return default if room is None else min(default, room)
    if room is not None and asked > room:
        raise CommandError(
            f"behind this prompt the model's context has room for {room:,} tokens",
            f"--max-tokens {room} is the most",
        )
    return asked


def _sample(
    source: Source,
    request: Request,
    decode: Callable[[Sequence[int]], str],
    count: int,
    seed: int | None,
    *,
    cpu: bool,
    tell: Callable[[str], None],
) -> list[Choice]:
    """Each from random numbers of its own, so that the first ones don't hang on their number."""
    import numpy as np

    from finetune_cli.commands.complete.generation import complete
    from finetune_trainer.evaluation.inference import CausalModel

    try:
        model = CausalModel(source.folder, source.adapter, cpu=cpu)
        return [
            complete(
                model,
                request,
                decode,
                np.random.default_rng(None if seed is None else [seed, index]),
                tell,
            )
            for index in range(count)
        ]
    except KeyboardInterrupt:
        tell("\n")
        raise
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise _explained(source, error) from error


def _explained(source: Source, error: Exception) -> CommandError:
    """What transformers and torch raise, as a sentence."""
    what = " ".join(str(error).split())[:300]
    if "out of memory" in what:
        return CommandError(f"{source.name} does not fit into the GPU's memory", "give --cpu")
    return CommandError(f"the model in {source.folder} can't be used: {what}")


def _as_object(
    source: Source,
    choices: Sequence[Choice],
    sampled: Sequence[Choice],
    request: Request,
    tokenizer: ExampleTokenizer,
    *,
    is_chat: bool,
) -> dict[str, Any]:
    from finetune_cli.commands.complete.answers import chat_completion, completion, usage

    make = chat_completion if is_chat else completion
    names = tokenizer.texts if request.logprobs is not None else None
    return make(source.name, choices, names) | {"usage": usage(len(request.prompt), sampled)}


def _print(text: str) -> None:
    click.echo(printable(text), nl=False)


def _show(
    screen: Screen,
    choices: Sequence[Choice],
    tokenizer: ExampleTokenizer,
    *,
    logprobs: int | None,
    is_told: bool,
) -> None:
    for index, choice in enumerate(choices):
        if len(choices) > 1:
            screen.say(f"--- {index + 1} of {len(choices)}", "dim")
        click.echo("" if is_told else printable(choice.text))
        if logprobs is not None:
            _table(screen, choice, tokenizer)
    if any(choice.finish_reason == "length" for choice in choices):
        longest = max(len(choice.tokens) for choice in choices)
        screen.note(f"(cut after {longest} tokens: --max-tokens)")


def _table(screen: Screen, choice: Choice, tokenizer: ExampleTokenizer) -> None:
    """Each token, and below it the likeliest others at its position."""
    rows = []
    for it in choice.chosen:
        others = [top for top in it.likeliest if top != it.token]
        name, *names = (repr(text) for text in tokenizer.texts([it.token, *others]))
        rows.append((name, *_figures(it.logprob)))
        rows += [
            (f"  not {other}", *_figures(it.likeliest[top]))
            for other, top in zip(names, others, strict=True)
        ]
    screen.table(("TOKEN", "LOGPROB", "SHARE"), rows)


def _figures(logprob: float) -> tuple[str, str]:
    return f"{logprob:.4f}", f"{math.exp(logprob):.1%}"
