"""`finetune models`: a group of commands."""

import click

from finetune_cli.terminal.lazy_group import LazyGroup

COMMANDS = {
    "list": (
        "finetune_cli.commands.models.listing:list_models",
        "List the fine-tuned models in a namespace.",
    ),
    "get": ("finetune_cli.commands.models.listing:get_model", "Show a model in detail."),
    "pull": ("finetune_cli.commands.models.pull:pull", "Download the files of a model."),
    "serve": (
        "finetune_cli.commands.models.serve:serve_model",
        "Serve a model in the cluster, and wait until it is ready.",
    ),
    "stop": ("finetune_cli.commands.models.stop:stop_model", "Stop serving a model."),
    "delete": ("finetune_cli.commands.models.listing:delete_model", "Delete a model."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def command() -> None:
    """List, show, download, serve, or delete fine-tuned models.

    MODEL is the full name of a model, or the name of its Kubernetes object. `finetune create -m
    MODEL` continues its training, and `finetune complete MODEL` generates text with it on this
    machine.
    """
