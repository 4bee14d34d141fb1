"""`finetune keys`: a group of commands."""

import click

from finetune_cli.terminal.lazy_group import LazyGroup

COMMANDS = {
    "create": (
        "finetune_cli.commands.keys.create:create_key",
        "Create an API key for a ServiceAccount.",
    ),
    "list": ("finetune_cli.commands.keys.listing:list_keys", "List the API keys in a namespace."),
    "revoke": ("finetune_cli.commands.keys.revoke:revoke_keys", "Revoke API keys."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def command() -> None:
    """Create, list, or revoke API keys of the gateway.

    A key has the permissions of a ServiceAccount in the namespace of the gateway. You need
    permission to get, create, and patch Secrets there.
    """
