"""`finetune complete`: generates text with a model on this machine."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from finetune_cli.artifacts.local_models import find_source, loaded
from finetune_cli.commands.complete.flags import (
    DEFAULT_CHAT_TOKENS,
    DEFAULT_TOKENS,
    CompleteOptions,
    completion_flags,
)
from finetune_cli.machine import INFERENCE, require_packages
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.output import show_document
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from finetune_data.tokenize.tokenizer import Tokenizing
    from finetune_serving.completion.generation import Choice, Part, Request
    from finetune_serving.completion.local_model import LocalModel
    from finetune_serving.completion.prompts import Prompt

LARGEST_PROMPT = 16 * 1024 * 1024  # bytes of stdin


@click.command()
@click.argument("model", required=False)
@click.option("-m", "--model", "old_model", metavar="MODEL", hidden=True)
@completion_flags
@output_flag
@cluster_flags
def command(**given: Any) -> None:
    """Generate text with a fine-tuned model on this machine.

    MODEL is a folder from `models pull` or `run`, the name of a fine-tuned model or of its
    fine-tune, or an S3 address. Downloads are cached in ~/.cache/finetune/models. The prompt is
    encoded as in the training. Flags and defaults are those of OpenAI's completions API.
    """
    options = CompleteOptions(**given)
    model = _checked_model(options)
    require_packages(INFERENCE, "generating text on this machine")
    _complete(options, model, Screen())


def _checked_model(options: CompleteOptions) -> str:
    """MODEL, after checks of the command line."""
    model = options.model or options.old_model
    if not model:
        raise click.UsageError("missing MODEL: a folder, a name, or an S3 address")
    if options.best_of is not None and options.best_of < options.count:
        raise CommandError("--best-of must be at least --n", code=EXIT_USAGE)
    if "" in options.stops:
        raise CommandError("--stop must not be empty", code=EXIT_USAGE)
    if options.messages and options.prompt is not None:
        raise CommandError(
            "--prompt and --message cannot be combined", "remove one of them", code=EXIT_USAGE
        )
    return model


def _complete(options: CompleteOptions, model: str, screen: Screen) -> None:
    prompt = options.prompt
    if not options.messages and prompt is None:
        prompt = _from_stdin(screen)
    elif "\\n" in (prompt or ""):
        screen.note(r"The prompt contains a literal \n. In bash, $'...\n' contains a line break.")
    source = find_source(model, options.base, options.target, screen)
    if prompt is not None and not options.as_is:
        prompt = _separated(prompt, source, screen)
    tokenizer, encoded, room = _encode(source, prompt, options.messages)
    request = _request(options, encoded, room)
    sampled = _sample(source, request, tokenizer.decode, options)
    choices = sampled
    if options.best_of is not None:
        choices = sorted(sampled, key=lambda choice: -choice.mean_logprob)[: options.count]
    if options.output:
        is_chat = bool(options.messages)
        answer = _as_object(source, choices, sampled, request, tokenizer, is_chat=is_chat)
        show_objects(answer, options.output)
        return
    _show(screen, choices, tokenizer, options)


def _request(options: CompleteOptions, encoded: Prompt, room: int | None) -> Request:
    from finetune_serving.completion.generation import Request
    from finetune_serving.completion.sampling import Sampling

    return Request(
        prompt=encoded.tokens,
        end_tokens=encoded.end_tokens,
        max_tokens=_limit(options.max_tokens, room, is_chat=bool(options.messages)),
        stops=options.stops,
        sampling=Sampling(
            options.temperature,
            options.top_p,
            options.presence_penalty,
            options.frequency_penalty,
        ),
        logprobs=options.logprobs,
    )


def _from_stdin(screen: Screen) -> str:
    if sys.stdin.isatty():
        screen.note("Enter the prompt and press Ctrl-D.")
    data = sys.stdin.buffer.read(LARGEST_PROMPT + 1)
    if len(data) > LARGEST_PROMPT:
        raise CommandError("the prompt is larger than 16 MiB", "shorten it")
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise CommandError(f"the prompt is not UTF-8: byte {error.start + 1}") from error


def _separated(prompt: str, source: LocalModel, screen: Screen) -> str:
    """The prompt followed by the separator of the training prompts."""
    from finetune_serving.completion.prompts import with_separator

    found = with_separator(prompt, source.separator)
    if found != prompt:
        added = json.dumps(source.separator, ensure_ascii=False)
        screen.note(
            f"Appended the separator {added}, which ended all training prompts (--as-is omits it)."
        )
    return found


def _encode(
    source: LocalModel, prompt: str | None, messages: Sequence[tuple[str, str]]
) -> tuple[Tokenizing, Prompt, int | None]:
    """The tokenizer, the encoded prompt, and the remaining context; None: unknown."""
    from finetune_data.models.base_models import model_positions
    from finetune_data.tokenize.confined_tokenizer import ConfinedTokenizer
    from finetune_serving.completion import prompts

    tokenizer = ConfinedTokenizer(source.folder, source.name)
    if messages:
        written = [{"role": role, "content": text} for role, text in messages]
        try:
            found = prompts.of_messages(tokenizer, written, source)
        except prompts.RefusedMessagesError as error:
            raise CommandError(
                str(error), "the chat template of the model rejects these messages"
            ) from error
    else:
        found = prompts.of_text(tokenizer, prompt or "", source)
    context = model_positions(source.folder)
    room = None if context is None else context - len(found.tokens)
    if room is not None and room < 1:
        raise CommandError(
            f"the prompt has {len(found.tokens):,} tokens, but the model's context has only "
            f"{context:,}",
            "shorten the prompt",
        )
    return tokenizer, found, room


def _limit(requested: int | None, room: int | None, *, is_chat: bool) -> int:
    if requested is None:
        default = DEFAULT_CHAT_TOKENS if is_chat else DEFAULT_TOKENS
        return default if room is None else min(default, room)
    if room is not None and requested > room:
        raise CommandError(
            f"--max-tokens {requested} is too large: the model's context has room "
            f"for {room:,} tokens after the prompt",
            f"set --max-tokens to at most {room}",
        )
    return requested


def _sample(
    source: LocalModel,
    request: Request,
    decode: Callable[[Sequence[int]], str],
    options: CompleteOptions,
) -> list[Choice]:
    """Sample the completions, each with its own generator, so that they do not depend on --n."""
    import numpy as np

    from finetune_serving.completion.generation import complete

    def generator(index: int) -> np.random.Generator:
        return np.random.default_rng(None if options.seed is None else [options.seed, index])

    on_part = _print if options.is_streamed else _ignore
    try:
        with loaded(source, cpu=options.cpu) as model:
            return [
                complete(model, request, decode, generator(index), on_part)
                for index in range(options.sample_count)
            ]
    except KeyboardInterrupt:
        if options.is_streamed:
            show_document("\n", ends_line=False)
        raise


def _as_object(
    source: LocalModel,
    choices: Sequence[Choice],
    sampled: Sequence[Choice],
    request: Request,
    tokenizer: Tokenizing,
    *,
    is_chat: bool,
) -> dict[str, Any]:
    from finetune_serving.completion.answers import chat_completion, completion, usage

    make = chat_completion if is_chat else completion
    names = tokenizer.texts if request.logprobs is not None else None
    return make(source.name, choices, names) | {"usage": usage(len(request.prompt), sampled)}


def _print(part: Part) -> None:
    show_document(part.text, ends_line=False)


def _ignore(part: Part) -> None:
    """Do not stream: the text is printed at the end."""


def _show(
    screen: Screen,
    choices: Sequence[Choice],
    tokenizer: Tokenizing,
    options: CompleteOptions,
) -> None:
    for index, choice in enumerate(choices):
        if len(choices) > 1:
            screen.say(f"--- {index + 1} of {len(choices)}", "dim")
        show_document("" if options.is_streamed else choice.text)
        if options.logprobs is not None:
            _table(screen, choice, tokenizer)
    if any(choice.finish_reason == "length" for choice in choices):
        longest = max(len(choice.tokens) for choice in choices)
        screen.note(f"(stopped after {longest} tokens; --max-tokens sets the limit)")


def _table(screen: Screen, choice: Choice, tokenizer: Tokenizing) -> None:
    """Print each token, followed by its likeliest alternatives."""
    rows = []
    for it in choice.sampled:
        others = [top for top in it.likeliest if top != it.token]
        name, *names = (repr(text) for text in tokenizer.texts([it.token, *others]))
        rows.append((name, *_figures(it.logprob)))
        rows += [
            (f"  not {other}", *_figures(it.likeliest[top]))
            for other, top in zip(names, others, strict=True)
        ]
    screen.table(("TOKEN", "LOGPROB", "PROBABILITY"), rows)


def _figures(logprob: float) -> tuple[str, str]:
    return f"{logprob:.4f}", f"{math.exp(logprob):.1%}"
