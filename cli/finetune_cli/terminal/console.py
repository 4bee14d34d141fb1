"""Output for users: colors on a terminal, the same text without colors in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from finetune_cli.terminal.format import printable, shortened, size

if TYPE_CHECKING:
    from rich.console import Console

    from finetune_storage.progress import ProgressCallback


GAP, NARROW_GAP = 3, 2  # blanks between the columns of a table
ELASTIC = 14  # minimum width of a column that can be shortened, in characters


class Screen:
    """Prints for users: the requested output to stdout, everything else to stderr."""

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(highlight=False, soft_wrap=False)

    @cached_property
    def errors(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    @property
    def is_pretty(self) -> bool:
        return self.console.is_terminal

    @property
    def has_color(self) -> bool:
        """Whether escape sequences can set colors. Old consoles of Windows know none."""
        has_codes = self.console.color_system not in {None, "windows"}
        return self.is_pretty and not self.console.no_color and has_codes

    def say(self, text: str = "", style: str | None = None) -> None:
        """Print lines to stdout. `text` may be untrusted."""
        text = printable(text)
        if self.is_pretty:
            from rich.text import Text

            # the terminal wraps the line, so that commands and addresses can be copied
            self.console.print(Text(text, style=style or ""), soft_wrap=True)
        else:
            click.echo(text)

    def note(self, text: str) -> None:
        """Print a line to stderr, in addition to the output."""
        click.echo(printable(text), err=True)

    def paint(self, lines: Iterable[Sequence[tuple[str, str]]], styles: Mapping[str, str]) -> None:
        """Print lines of printable texts with the names of their styles, each once it is there.

        A line must fit the width. Without colors, the texts are printed as they are.
        """
        if not self.has_color:
            for line in lines:
                click.echo("".join(text for text, _ in line).rstrip(" "))
            return
        from rich.color import ColorSystem
        from rich.style import Style

        system = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT}.get(
            self.console.color_system or "", ColorSystem.TRUECOLOR
        )
        parsed = {name: Style.parse(style) for name, style in styles.items()}
        for line in lines:
            painted = (parsed[name].render(text, color_system=system) for text, name in line)
            click.echo("".join(painted), color=True)

    def pairs(self, rows: Sequence[tuple[str, str]], indent: int = 0) -> None:
        """Print aligned names and values; empty values are omitted."""
        shown = [(name, value) for name, value in rows if value]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.hanging(" " * indent + f"{name:<{width}}  ", value)

    def hanging(self, start: str, text: str, style: str = "dim") -> None:
        """Print `start` in a style, followed by a text with a hanging indent."""
        text = printable(text)
        if not self.is_pretty:
            click.echo(start + text)
            return
        from rich.table import Table
        from rich.text import Text

        if " " not in text:  # an address: keep it in one piece for copying
            self.console.print(
                Text(start, style=style).append(text, style="default"), soft_wrap=True
            )
            return
        table = Table.grid(padding=0)
        table.add_column(no_wrap=True, style=style)
        table.add_column(overflow="fold")
        table.add_row(Text(start), Text(text))
        self.console.print(table)

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], elastic: str = ""
    ) -> None:
        """Print columns aligned as kubectl aligns them.

        elastic: the heading of a column whose cells are shortened in the middle if the terminal is
        too narrow; in a pipe they are complete.
        """
        lines = [[printable(cell) for cell in row] for row in (headings, *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        gap, excess = GAP, sum(widths) + GAP * (len(widths) - 1) - self.console.width
        if self.is_pretty and excess > 0:
            gap, excess = NARROW_GAP, excess - (len(widths) - 1) * (GAP - NARROW_GAP)
        if self.is_pretty and excess > 0 and elastic:
            index = headings.index(elastic)
            widths[index] = max(min(widths[index], ELASTIC), widths[index] - excess)
            for line in lines:
                line[index] = shortened(line[index], widths[index])
        for line in lines:
            cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
            click.echo((" " * gap).join(cells).rstrip())

    @contextmanager
    def transfer(self, what: str) -> Iterator[ProgressCallback]:
        """A progress bar in bytes on a terminal; one line if stderr is not a terminal."""
        if not self.errors.is_terminal:
            self.note(what)
            yield lambda done, total: None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), Remaining())
        with Progress(*columns, console=self.errors, transient=True) as bar:
            task = bar.add_task(printable(what), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)


def show_objects(value: Any, output: str) -> None:
    """Print an object or a list for programs, as JSON or YAML that parses to the same value."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    click.echo(to_yaml(value), nl=False)


def to_yaml(value: Any) -> str:
    """YAML without aliases, with keys in their original order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Dumper, value: str) -> Any:
        # in single quotes, these line separators would be parsed as spaces
        style = '"' if any(char in "\x85\u2028\u2029" for char in value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def as_list(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The List object that kubectl prints for several objects."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(items)}


def file_line(path: str, count: int) -> str:
    return f"{path} ({size(count)})"
