"""Output for users: colors on a terminal, the same text without colors in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetune_api.text.sanitizing import is_deceptive, sanitize, sanitize_serialized
from finetune_cli.terminal import output
from finetune_cli.terminal.format import shortened, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn
    from rich.text import Text

    from finetune_storage.progress import ProgressCallback


GAP, NARROW_GAP = 3, 2  # blanks between the columns of a table
ELASTIC = 14  # minimum width of a column that can be shortened, in characters


Cell = Sequence[tuple[str, str]]  # texts and their styles


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
        """Print a message to stdout. `text` may be untrusted."""
        if self.is_pretty:
            # the terminal wraps the line, so that commands and addresses can be copied
            text = output.message_text(text)
            self.console.print(styled((text, style or "")), soft_wrap=True)
        else:
            output.show(text)

    def note(self, text: str = "", color: str | None = None) -> None:
        """Print a message to stderr, in addition to the output."""
        output.show(text, is_error=True, color=color)

    def paint(self, lines: Iterable[Sequence[tuple[str, str]]], styles: Mapping[str, str]) -> None:
        """Print lines of texts with the names of their styles, each once it is there.

        A line must fit the width. Without colors, the texts are printed as they are.
        """
        if not self.has_color:
            for line in lines:
                output.show_document("".join(sanitize(text) for text, _ in line).rstrip(" "))
            return
        from rich.color import ColorSystem
        from rich.style import Style

        system = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT}.get(
            self.console.color_system or "", ColorSystem.TRUECOLOR
        )
        parsed = {name: Style.parse(style) for name, style in styles.items()}
        for line in lines:
            painted = (
                parsed[name].render(sanitize(text), color_system=system) for text, name in line
            )
            output.show_painted("".join(painted))

    def show_styled(self, *parts: tuple[str, str], soft_wrap: bool = False) -> None:
        """Print texts, which may be untrusted, with their styles."""
        self.console.print(styled(*parts), soft_wrap=soft_wrap)

    def pairs(self, rows: Sequence[tuple[str, str]], indent: int = 0) -> None:
        """Print aligned names and values; empty values are omitted."""
        shown = [(name, value) for name, value in rows if value]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.hanging(" " * indent + f"{name:<{width}}  ", value)

    def hanging(self, start: str, text: str, style: str = "dim") -> None:
        """Print `start` in a style, followed by a text with a hanging indent."""
        if not self.is_pretty:
            output.show(start + text, indent=" " * len(start))
            return
        from rich.table import Table

        text = output.message_text(text)
        if " " not in text:  # an address: keep it in one piece for copying
            self.show_styled((start, style), (text, "default"), soft_wrap=True)
            return
        table = Table.grid(padding=0)
        table.add_column(no_wrap=True, style=style)
        table.add_column(overflow="fold")
        table.add_row(styled((start, "")), styled((text, "")))
        self.console.print(table)

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], elastic: str = ""
    ) -> None:
        """Print columns aligned as kubectl aligns them.

        elastic: the heading of a column whose cells are shortened in the middle if the terminal is
        too narrow; in a pipe they are complete.
        """
        lines = [[sanitize(cell) for cell in row] for row in (headings, *rows)]
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
            output.show_document((" " * gap).join(cells).rstrip())

    def grid(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Print columns of styled texts without headings on a terminal; the last one wraps."""
        from rich.table import Table

        made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for number in range(max(map(len, rows), default=0)):
            made.add_column(no_wrap=number == 0, overflow="fold")
        for row in rows:
            made.add_row(*(styled(*cell) for cell in row))
        self.console.print(made)

    @contextmanager
    def progress(self, what: str) -> Iterator[ProgressCallback]:
        """A progress bar in percent on a terminal; no output in a pipe."""
        if not self.errors.is_terminal:
            yield lambda done, total: None
            return
        from rich.progress import TextColumn

        with self._bar(what, TextColumn("{task.percentage:>3.0f} %")) as callback:
            yield callback

    @contextmanager
    def transfer(self, what: str) -> Iterator[ProgressCallback]:
        """A progress bar in bytes on a terminal; one line if stderr is not a terminal."""
        if not self.errors.is_terminal:
            self.note(what)
            yield lambda done, total: None
            return
        from rich.progress import DownloadColumn

        with self._bar(what, DownloadColumn(True)) as callback:
            yield callback

    @contextmanager
    def _bar(self, what: str, amount: ProgressColumn) -> Iterator[ProgressCallback]:
        """A bar between its title, the amount in a column, and the time that remains."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        title = TextColumn("{task.description}", markup=False)
        columns = (title, BarColumn(), amount, TimeRemainingColumn())
        with Progress(*columns, console=self.errors, transient=True) as bar:
            task = bar.add_task(sanitize(what), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)


def styled(*parts: tuple[str, str]) -> Text:
    """Texts, which may be untrusted, with their styles; a text is no markup of rich."""
    from rich.text import Text

    made = Text()
    for text, style in parts:
        made.append(sanitize(text, keeps_lines=True), style=style)
    return made


def show_objects(value: Any, form: str) -> None:
    """Print an object or a list for programs, as JSON or YAML that parses to the same value."""
    text = to_json(value, indent=2) + "\n" if form == "json" else to_yaml(value)
    output.show_document(text, ends_line=False)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON with escapes for the characters that deceive in a terminal."""
    return sanitize_serialized(json.dumps(value, indent=indent, ensure_ascii=False))


def to_yaml(value: Any) -> str:
    """YAML without aliases, with keys in their original order, escaped like JSON."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent(dumper: Dumper, value: str) -> Any:
        # only double quotes have escapes, and only there is a line separator no space
        style = None if value.isascii() and value.isprintable() else _quotes(value)
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, represent)
    text = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return sanitize_serialized(text)


def _quotes(value: str) -> str | None:
    """The style of a YAML string; None: any."""
    return '"' if any(char not in "\n\t" and is_deceptive(char) for char in value) else None


def as_list(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The List object that kubectl prints for several objects."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(items)}


def file_line(path: str, count: int) -> str:
    return f"{path} ({size(count)})"
