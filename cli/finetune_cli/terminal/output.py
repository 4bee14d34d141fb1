"""The edge of the command line: the only module that writes to stdout and stderr without rich.

Every text is sanitized here, no matter who wrote it. A program cannot tell its own words from the
cluster's in a sentence that has both.
"""

from __future__ import annotations

import io
from typing import Any

import click

from finetune_api.text.sanitizing import sanitize

INDENT = "  "


def message_text(text: str, indent: str = INDENT) -> str:
    """A message whose further lines are indented, so that none looks like another message."""
    first, *others = sanitize(text, keeps_lines=True).splitlines() or [""]
    lines = (it if not it or it.startswith(indent) else indent + it for it in others)
    return "\n".join((first, *lines))


def show(
    text: str, *, is_error: bool = False, color: str | None = None, indent: str = INDENT
) -> None:
    """Print a message to stdout or stderr, in a color if it is a terminal."""
    click.secho(message_text(text, indent), err=is_error, fg=color)


def show_document(text: str, *, ends_line: bool = True) -> None:
    """Print a text that is the requested output, with its own lines."""
    click.echo(sanitize(text, keeps_lines=True), nl=ends_line)


def show_painted(line: str) -> None:
    """Print a line with escape sequences of this program, whose texts are sanitized already."""
    click.echo(line, color=True)


def show_usage_error(error: click.ClickException) -> None:
    """Print what is wrong with the command line; it may repeat an argument."""
    text = io.StringIO()
    error.show(file=text)
    click.echo(sanitize(text.getvalue(), keeps_lines=True), err=True, nl=False)


def confirm(question: str, *, default: bool = False, aborts: bool = False) -> bool:
    """Ask a question that is answered with yes or no. aborts: `no` ends the program."""
    question = click.style(sanitize(question), bold=True)
    return click.confirm(question, default=default, abort=aborts)


def sanitize_libraries() -> None:
    """Sanitize the log messages and warnings of libraries, which quote files and answers."""
    import logging
    import warnings

    format_warning = warnings.formatwarning

    def record(*fields: Any, **named: Any) -> logging.LogRecord:
        made = logging.LogRecord(*fields, **named)
        made.msg, made.args = message_text(made.getMessage()), None
        return made

    def warning(*fields: Any, **named: Any) -> str:
        return sanitize(format_warning(*fields, **named), keeps_lines=True)

    logging.setLogRecordFactory(record)
    warnings.formatwarning = warning
