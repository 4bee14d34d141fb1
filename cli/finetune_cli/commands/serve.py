"""`finetune serve`: OpenAI's API on this machine, without a cluster."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune_cli.machine import find_machine, require_trainer
from finetune_cli.manifests.models_file import known_models
from finetune_cli.options import models_flag, output_folder_flag
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE, program_name

if TYPE_CHECKING:
    from finetune_api.finetune_status import EventEntry

COLORS = {"warning": "yellow", "error": "red"}


@click.command()
@output_folder_flag("Folder for uploaded files, fine-tunes, models, and logs.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port on 127.0.0.1; 0 for a free one.",
)
@models_flag
@click.option("--cpu", is_flag=True, help="Train and complete on the CPU even if there are GPUs.")
def command(output_folder: Path, port: int, models: Path | None, cpu: bool) -> None:
    """Serve OpenAI's API on this machine, without a cluster.

    Programs that use OpenAI's files, fine-tuning, completions, and models work after they get the
    two variables that this command prints. One fine-tune trains at a time. Ctrl-C saves a
    checkpoint; the same command continues from it.
    """
    screen = Screen()
    require_trainer()
    from finetune_local.machine import Machine
    from finetune_local.main import InUseError, Reports, serve

    root = output_folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    catalog = [*known_models(models, root).values()]
    found = find_machine(cpu=cpu)
    machine = Machine(root, catalog, port, found.gpus, found.memory_gib)

    def ready(url: str, key: str) -> None:
        hardware = f"{found.gpus} GPUs" if found.gpus else "the CPU"
        screen.note(f"Serving OpenAI's API from {output_folder} on {hardware}. Ctrl-C ends it.")
        screen.note()
        screen.note("Paste this into another terminal:")
        screen.note()
        for name, value in _variables(url, key):
            screen.say(f"export {name}={shlex.quote(value)}")
        screen.note()

    def event(name: str, entry: EventEntry) -> None:
        screen.note(f"{name}: {entry.message}", COLORS.get(entry.level))

    def stopping() -> None:
        screen.note("Ending: a training saves a checkpoint first. Ctrl-C again does not wait.")

    try:
        serve(machine, Reports(ready, event, stopping))
    except InUseError as error:
        raise CommandError(
            f"another `{program_name()} serve` uses the folder {output_folder}",
            "use the one that runs, or pass another --output-folder",
            code=EXIT_USAGE,
        ) from error
    except OSError as error:
        hint = "pass another --port" if error.errno == errno.EADDRINUSE else ""
        raise CommandError(str(error), hint) from error


def _variables(url: str, key: str) -> list[tuple[str, str]]:
    """The variables of OpenAI's clients: the first is that of versions before 1.0."""
    return [("OPENAI_API_BASE", url), ("OPENAI_BASE_URL", url), ("OPENAI_API_KEY", key)]
