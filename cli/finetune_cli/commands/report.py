"""`finetune report`: downloads report.html, a self-contained page for a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from finetune_api.names import Reason
from finetune_cli.artifacts.s3 import (
    layout_of,
    open_storage,
    require_training,
    write_new,
)
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_finetune
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, name_argument
from finetune_cli.terminal.console import Screen, file_line
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.output import show_document

FILE = "report.html"


@click.command()
@name_argument
@click.option(
    "--to",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Output file; - writes to stdout.  [default: NAME-report.html]",
)
@click.option("--open", "opens", is_flag=True, help="Open the report in a browser.")
@cluster_flags
def command(*, name: str, path: Path | None, opens: bool, target: ClusterTarget) -> None:
    """Download the training report: curves, data, sample completions, and advice."""
    from finetune_storage.errors import StorageError

    finetune = read_finetune(connect(target).finetunes.get(name))
    if finetune.status.resolved is None:
        require_training(finetune, "report", target)
    uri = layout_of(finetune).report
    try:
        data = open_storage().read_bytes(uri)
    except StorageError as error:
        if error.failure.code != Reason.DATA_NOT_FOUND:
            raise
        require_training(finetune, "report", target)
        raise CommandError(
            f"fine-tune {name} ({finetune.status.state or 'pending'}) has no report at {uri}",
            "the report is written at the end of the training; until then, use `results --plot`",
        ) from error
    if path == Path("-"):
        show_document(data.decode("utf-8", "surrogateescape"), ends_line=False)
        return
    file = path or Path(f"{name}-{FILE}")
    write_new(file, data)
    Screen().say(f"Wrote {file_line(str(file), len(data))}")
    if opens:
        webbrowser.open(file.resolve().as_uri())
