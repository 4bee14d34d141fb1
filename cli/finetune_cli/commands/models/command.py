"""`finetune models`: its own commands."""

import click

from finetune_cli.terminal.lazy_group import LazyGroup

COMMANDS = {
    "list": (
        "finetune_cli.commands.models.listing:list_models",
        "The fine-tuned models of a namespace.",
    ),
    "get": ("finetune_cli.commands.models.listing:get_model", "What is known of one."),
    "pull": ("finetune_cli.artifacts.model_files:pull", "Fetch its files into a folder."),
    "delete": ("finetune_cli.commands.models.listing:delete_model", "Delete it."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def command() -> None:
    """Fine-tuned models: list, get, pull, delete.

    MODEL is a model's whole name, or that of its resource. `finetune create -m MODEL` trains on,
    `finetune complete MODEL` lets it answer.
    """
