"""The program: its commands by name, each imported only when it is called."""

import importlib

import click

from finetune_api.names import EXIT_CRASH
from finetune_data.failures import FailureError

COMMANDS = {
    "prepare-data": ("finetune_cli.prepare_data.command:command", "Check and convert data files."),
}


class Commands(click.Group):
    """Knows every command's one line without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="finetune-operator", prog_name="finetune")
def finetune() -> None:
    """Fine-tune models on your own Kubernetes."""


def main() -> None:
    """Entry of `finetune` and `kubectl-finetune`: a foreseen error is a sentence."""
    try:
        finetune.main(prog_name="finetune")
    except FailureError as error:
        click.secho(f"error: {error.failure.message}", fg="red", err=True)
        if error.failure.hint:
            click.echo(f"hint: {error.failure.hint}", err=True)
        raise SystemExit(EXIT_CRASH) from error
