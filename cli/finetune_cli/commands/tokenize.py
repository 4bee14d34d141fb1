"""`finetune tokenize`: the tokens of a text for a base model."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune_cli.cluster.errors import ApiError
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import printable
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from finetune_data.read.examples import Example
    from finetune_data.tokenize.encoded import Encoded

BACKGROUNDS = ("on blue", "on dark_green", "on dark_magenta", "on dark_orange3", "on dark_cyan")
ROLES = {0: "start", 1: "prompt", 2: "completion"}
LARGEST_TEXT = 16 * 1024 * 1024  # bytes of stdin


@click.command()
@click.argument("text", required=False)
@click.option(
    "-m",
    "--model",
    required=True,
    metavar="MODEL",
    help="Model: a folder, s3://, hf://, the name of a fine-tuned model, or the name of a "
    "fine-tune (its base model).",
)
@click.option("--prompt", help="Prompt of a training example; use it with --completion.")
@click.option("--completion", help="Completion of a training example.")
@click.option("--ids", is_flag=True, help="Print the id, role, and text of each token.")
@output_flag
@cluster_flags
def command(
    *,
    text: str | None,
    model: str,
    prompt: str | None,
    completion: str | None,
    ids: bool,
    output: str | None,
    target: ClusterTarget,
) -> None:
    """Show the tokens of a text for a base model. Without TEXT, the text is read from stdin.

    Tokens are shown in colors on a terminal and separated by bars in a pipe.
    """
    example = _example(text, prompt, completion)
    found, names = _encode(_address(model, target), example)
    plain_roles = [ROLES[role] for role in found.roles]
    if output:
        pairs = zip(found.tokens, names, plain_roles, strict=True)
        records = [{"id": token, "text": name, "role": role} for token, name, role in pairs]
        show_objects({"count": len(records), "tokens": records}, output)
        return
    screen = Screen()
    if ids:
        rows = zip(map(str, found.tokens), plain_roles, map(repr, names), strict=True)
        screen.table(("ID", "ROLE", "TEXT"), list(rows))
    else:
        _show(screen, names, plain_roles)
    counts = {role: len([*group]) for role, group in groupby(sorted(plain_roles))}
    parts = ", ".join(f"{counts[role]:,} {role}" for role in ROLES.values() if role in counts)
    screen.note(f"{len(names):,} tokens ({parts})")


def _example(text: str | None, prompt: str | None, completion: str | None) -> Example:
    from finetune_data.read.examples import Row

    if prompt is not None or completion is not None:
        if text is not None:
            raise CommandError(
                "TEXT cannot be combined with --prompt and --completion", code=EXIT_USAGE
            )
        return Row(1, prompt or "", completion or "")
    if text is None:
        data = sys.stdin.buffer.read(LARGEST_TEXT + 1)
        if len(data) > LARGEST_TEXT:
            raise CommandError("the text is larger than 16 MiB", "shorten it")
        text = data.decode("utf-8", "replace")
    return Row(1, "", text)


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


def _encode(address: str, example: Example) -> tuple[Encoded, list[str]]:
    """The tokens and their texts; parts of a character are shown as bytes."""
    from finetune_cli.artifacts.base_models import load_base_tokenizer, storage_for
    from finetune_data.read.findings import Finding

    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        base = load_base_tokenizer(address, None, storage_for([address]), Path(folder))
        found = base.tokenizer.encode([example])[0]
        if isinstance(found, Finding):
            raise CommandError(str(found))
        [encoded] = found
        return encoded, base.tokenizer.texts(encoded.tokens)


def _show(screen: Screen, names: Sequence[str], roles: Sequence[str]) -> None:
    if not screen.is_pretty:
        screen.say("|".join(_visible(name) for name in names))
        return
    from rich.text import Text

    line: Any = Text()
    for index, (name, role) in enumerate(zip(names, roles, strict=True)):
        bold = "bold " if role == "completion" else ""
        line.append(_visible(name, keeps_lines=True), style=bold + BACKGROUNDS[index % 5])
    screen.console.print(line)


def _visible(name: str, *, keeps_lines: bool = False) -> str:
    end = "↵\n" if keeps_lines else "↵"
    return printable(name.replace("\n", "\0")).replace(r"\x00", end).replace("\t", "→")
