"""`finetune results`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from finetune_api.finetune import FineTune
from finetune_api.names import Reason
from finetune_cli.artifacts.s3 import (
    layout_of,
    open_storage,
    parse_address,
    require_training,
)
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_finetune
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, name_argument, output_flag
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.output import show_document

HEIGHT = 10  # lines of one plot
WIDEST = 120  # characters


@click.command()
@name_argument
@click.option("--plot", is_flag=True, help="Plot losses and accuracies in the terminal.")
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the plots to a PNG file; requires matplotlib.",
)
@click.option(
    "-c",
    "--column",
    "columns",
    multiple=True,
    metavar="NAME",
    help="Plot this column. May be repeated.",
)
@output_flag
@cluster_flags
def command(
    *,
    name: str,
    plot: bool,
    png: Path | None,
    columns: tuple[str, ...],
    output: str | None,
    target: ClusterTarget,
) -> None:
    """Print or plot results.csv, which has a row for each training step.

    The file is available from the first steps of the training. This machine needs S3 credentials
    (AWS_*).
    """
    from finetune_cli.commands.results.table import panels, parse

    finetune = read_finetune(connect(target).finetunes.get(name))
    text, where = _fetch(finetune, target)
    if not (plot or png or columns or output):
        show_document(text, ends_line=False)
        return
    table = parse(text, where)
    if output:
        show_objects(table.records(), output)
        return
    chosen = panels(table, columns)
    if not chosen or not all(series.values for panel in chosen for series in panel):
        raise CommandError(f"{where} has no values to plot yet", "retry after a few training steps")
    screen = Screen()
    if png:
        from finetune_cli.commands.results.png import write_png

        write_png(png, chosen, f"{name} ({finetune.spec.model})")
        screen.note(f"Wrote {png}")
    if plot or not png:
        from finetune_cli.commands.results.chart import chart

        width = min(WIDEST, shutil.get_terminal_size((80, 24)).columns)
        for panel in chosen:
            for line in chart(panel, width, HEIGHT):
                show_document(line)


def _fetch(finetune: FineTune, target: ClusterTarget) -> tuple[str, str]:
    """The text and the address of results.csv, in the status or at its default location."""
    from finetune_storage.errors import StorageError

    if finetune.status.resolved is None:
        require_training(finetune, "results", target)
    named = finetune.status.result_files or []
    uri = parse_address(named[0]) if named else layout_of(finetune).results
    try:
        return open_storage().read_bytes(uri).decode("utf-8", "replace"), str(uri)
    except StorageError as error:
        if error.failure.code != Reason.DATA_NOT_FOUND:
            raise
        require_training(finetune, "results", target)
        state = finetune.status.state or "pending"
        raise CommandError(
            f"no results file available for fine-tune {finetune.metadata.name} ({state})",
            "the file is written from the first training steps",
        ) from error
