"""A command group that imports only the command that is called."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """table: command name to ("module:attribute", one line of help)."""

    def __init__(self, *, table: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module, name = self._table[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Accept OpenAI's spelling (`prepare_data`); suggest a match for a misspelled name."""
        name = args[0].replace("_", "-").lower()
        if name in self._table:
            args = [name, *args[1:]]
        elif not args[0].startswith("-") and not ctx.resilient_parsing:
            close = difflib.get_close_matches(name, self._table, 1, 0.5)
            advice = f"Did you mean {close[0]!r}?" if close else "--help lists all commands."
            raise click.UsageError(f"unknown command {args[0]!r}. {advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])
