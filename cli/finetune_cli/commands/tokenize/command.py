"""`finetune tokenize`: the tokens of a text or of a training example for a base model."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from finetune_api.names import EXIT_USER
from finetune_cli.cluster.errors import ApiError
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.tokenize.lookup import (
    Located,
    find_example,
    is_data,
    open_data,
    open_file,
)
from finetune_cli.options import cluster_flags, output_flag, reading_flags
from finetune_cli.terminal import token_view
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE
from finetune_data.tokenize.spans import visible

if TYPE_CHECKING:
    from finetune_cli.artifacts.base_models import BaseTokenizer
    from finetune_data.read.reader import ReadOptions

BACKGROUNDS = ("on blue", "on dark_green", "on dark_magenta", "on dark_orange3", "on dark_cyan")
LARGEST_TEXT = 16 * 1024 * 1024  # bytes of stdin
STDIN = "-"

EPILOG = """
\b
Examples:
  finetune tokenize -m hf://Qwen/Qwen3-0.6B "Where is my parcel?"
  finetune tokenize -m ./base-model -f chats.jsonl --line 17
  finetune tokenize -m ./base-model --prompt "2 + 2 =" --completion " 4"
  head -1 chats.jsonl | finetune tokenize -m ./base-model --ids
"""


class Request(NamedTuple):
    """What to show: a text, or an example."""

    text: str | None
    located: Located | None = None


@click.command(epilog=EPILOG)
@click.argument("text", required=False)
@click.option(
    "-m",
    "--model",
    required=True,
    metavar="MODEL",
    help="Model: a folder, s3://, hf://, the name of a fine-tuned model, or the name of a "
    "fine-tune (its base model).",
)
@click.option(
    "-f",
    "--file",
    "file",
    metavar="FILE",
    help="Show an example of this data file: a path, s3://, or - for stdin. All formats of "
    "prepare-data are read.",
)
@click.option(
    "--line",
    type=click.IntRange(min=1),
    metavar="N",
    help="Line of the example; a row of a workbook or of Parquet.  [default: the first example]",
)
@click.option("--prompt", help="Prompt of a training example; use it with --completion.")
@click.option("--completion", help="Completion of a training example.")
@click.option(
    "--ids",
    is_flag=True,
    help="Print a table: id, role, whether it is learned, how it ends an answer, and text.",
)
@reading_flags
@output_flag
@cluster_flags
def command(
    *,
    text: str | None,
    model: str,
    file: str | None,
    line: int | None,
    prompt: str | None,
    completion: str | None,
    ids: bool,
    output: str | None,
    target: ClusterTarget,
    **reading: str | None,
) -> None:
    """Show what a model gets as tokens, and which of them it learns to write.

    TEXT, or stdin without it, is a text, or an example as in a data file: a JSON object with
    `messages`, or with `prompt` and `completion`. An example is shown as it is trained: the context
    that the model reads, what it learns to write, and the token that ends each answer. A line that
    a fine-tune would refuse is an error with exit code 65.
    """
    from finetune_data.read.reader import ReadOptions

    _check_arguments(text, file, prompt=prompt, completion=completion)
    options = ReadOptions(
        format=reading["format_name"],
        encoding=reading["encoding"],
        sheet=reading["sheet"],
        prompt_column=reading["prompt_column"],
        completion_column=reading["completion_column"],
    )
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="finetune-") as name:
        folder = Path(name)
        if prompt is not None or completion is not None:
            request = _of_row(prompt or "", completion or "")
        else:
            request = _request(text, file, line, folder, options)
        base = _load(_address(model, target), folder)
        if request.located is None:
            _show_text(screen, base, request.text or "", ids=ids, output=output)
        else:
            _show_example(screen, base, request.located, model, ids=ids, output=output)


def _check_arguments(
    text: str | None, file: str | None, *, prompt: str | None, completion: str | None
) -> None:
    has_pair = prompt is not None or completion is not None
    if has_pair and (text is not None or file is not None):
        other = "TEXT" if text is not None else "--file"
        raise CommandError(
            f"{other} cannot be combined with --prompt and --completion", code=EXIT_USAGE
        )
    if text is not None and file is not None:
        raise CommandError("TEXT cannot be combined with --file", code=EXIT_USAGE)


def _of_row(prompt: str, completion: str) -> Request:
    from finetune_data.read.examples import Row

    return Request(None, Located(Row(1, prompt, completion), "", ""))


def _request(
    text: str | None, file: str | None, line: int | None, folder: Path, options: ReadOptions
) -> Request:
    from finetune_cli.artifacts.base_models import storage_for

    if file is not None and file != STDIN:
        reader = open_file(file, storage_for([file]), folder, options)
        return Request(None, find_example(reader, line))
    name, data = "TEXT", b"" if text is None else text.encode("utf-8", "surrogateescape")
    if text is None:
        name, data = "stdin", _read_stdin()
    shown = data.decode("utf-8", "replace")
    if file == STDIN or is_data(shown):
        return Request(None, find_example(open_data(data, name, folder, options), line))
    if line is not None:
        raise CommandError("--line requires a data file (-f FILE)", code=EXIT_USAGE)
    return Request(shown)


def _read_stdin() -> bytes:
    data = sys.stdin.buffer.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise CommandError(
            "the text is larger than 16 MiB", "shorten it, or pass a data file with -f"
        )
    return data


def _address(model: str, target: ClusterTarget) -> str:
    """The address of the tokenizer. Names are resolved in the cluster."""
    if "://" in model or Path(model).expanduser().is_dir():
        return model
    from finetune_cli.artifacts.model_lookup import find_model
    from finetune_cli.cluster.connection import connect

    cluster = connect(target)
    try:
        base = (cluster.finetunes.get(model).get("status") or {}).get("resolved", {}).get("base")
        if base:
            return str(base["uri"])
    except ApiError as error:
        if not error.is_missing and error.status != 400:
            raise
    try:
        return str(find_model(cluster, model)["spec"]["uri"])
    except ApiError:
        raise
    except CommandError as error:
        raise CommandError(
            f"{model!r:.300} is not a folder, an address, a fine-tune, or a fine-tuned model",
            "for a model of the catalog, which only the operator knows, pass its address from the "
            "chart value `models` (s3://... or hf://...)",
        ) from error


def _load(address: str, folder: Path) -> BaseTokenizer:
    from finetune_cli.artifacts.base_models import load_base_tokenizer, storage_for

    return load_base_tokenizer(address, None, storage_for([address]), folder)


def _show_text(
    screen: Screen, base: BaseTokenizer, text: str, *, ids: bool, output: str | None
) -> None:
    """A text in colors or with bars between the tokens, and its end-of-sequence token."""
    from finetune_data.read.examples import Row
    from finetune_data.read.findings import Finding

    [found] = base.tokenizer.encode([Row(1, "", text)])
    assert not isinstance(found, Finding)
    [example] = found
    tokens = [*token_view.shown_tokens(example, base.tokenizer.texts)]
    if output:
        listed = [token_view.record(token) for token in tokens]
        show_objects({"count": len(tokens), "tokens": listed}, output)
        return
    if ids:
        screen.table(HEADINGS, [_row(token) for token in tokens])
    else:
        _paint_text(screen, [token.text for token in tokens])
    roles = [token_view.ROLES[token.role] for token in tokens]
    counts = {role: len([*group]) for role, group in groupby(sorted(roles))}
    parts = ", ".join(
        f"{counts[role]:,} {role}" for role in token_view.ROLES.values() if role in counts
    )
    screen.note(f"{len(tokens):,} tokens ({parts})")


def _paint_text(screen: Screen, names: Sequence[str]) -> None:
    if not screen.has_color:
        screen.say("|".join(visible(name) for name in names))
        return
    shown = (visible(name).replace("↵", "↵\n") for name in names)
    screen.show_styled(*((text, BACKGROUNDS[index % 5]) for index, text in enumerate(shown)))


HEADINGS = ("ID", "ROLE", "LEARNED", "END", "TEXT")


def _row(token: token_view.ShownToken) -> tuple[str, str, str, str, str]:
    item = token_view.record(token)
    is_learned = "yes" if item["learned"] else "no"
    return str(token.id), item["role"], is_learned, item["end"] or "", repr(token.text)


def _show_example(
    screen: Screen,
    base: BaseTokenizer,
    located: Located,
    model: str,
    *,
    ids: bool,
    output: str | None,
) -> None:
    """The training examples of a row or of a conversation. Refuses what a fine-tune refuses."""
    from finetune_api.errors import Audience
    from finetune_data.errors import DataError
    from finetune_data.read.examples import Conversation
    from finetune_data.read.findings import Finding
    from finetune_data.tokenize.acceptance import Acceptance

    example = located.example
    try:
        [found] = base.tokenizer.encode([example])
    except DataError as error:  # a chat, but no chat template
        failure = error.failure_for(Audience.SHELL)
        raise CommandError(failure.message, failure.hint or "", code=EXIT_USER) from error
    acceptance = Acceptance(base.tokenizer, model, base.context)
    refusal = acceptance.refusal(example, found) if located.file else None
    if isinstance(found, Finding):
        raise CommandError(f"{located.place}: {found.message}", code=EXIT_USER)
    acceptance.check_vocabulary(max(max(one.tokens) for one in found))
    names, is_chat = base.tokenizer.texts, isinstance(example, Conversation)
    if output:
        made = [token_view.records(it, names, is_chat=is_chat) for it in found]
        if located.file:
            show_objects({"file": located.file, "line": example.line, "examples": made}, output)
        else:
            show_objects({"count": made[0]["count"], "tokens": made[0]["tokens"]}, output)
    elif ids:
        for number, one in enumerate(found):
            if number:
                screen.say()
            rows = [_row(token) for token in token_view.shown_tokens(one, names)]
            screen.table(HEADINGS, rows)
    else:
        canvas = token_view.Canvas(screen.console.width, has_color=screen.has_color)
        heading = token_view.describe(example, located.place if located.file else "")
        screen.paint([token_view.legend(canvas), []], token_view.STYLES)
        readable = base.tokenizer.readable_texts
        lines = token_view.view(heading, found, readable, canvas, is_chat=is_chat)
        screen.paint(lines, token_view.STYLES)
    if refusal is not None:  # it is too long, which its tokens explain
        raise CommandError(
            f"{located.place}: {refusal.message}",
            "shorten the example, or use a model with a longer context",
            code=EXIT_USER,
        )
