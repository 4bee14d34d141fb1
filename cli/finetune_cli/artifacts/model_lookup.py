"""Finds a Model by its id or by the name of its Kubernetes object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_api.model_names import resource_name
from finetune_api.wire import JsonObject
from finetune_cli.cluster.errors import ApiError
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import program_name

if TYPE_CHECKING:
    from finetune_cli.cluster.connection import Cluster


def find_model(cluster: Cluster, name: str) -> JsonObject:
    """The Model whose spec.id or object name is `name`. Raises CommandError if there is none."""
    guess = resource_name(name)
    if guess:
        try:
            found = cluster.models.get(guess)
        except ApiError as error:
            if not error.is_missing:
                raise
        else:
            if name in {found["spec"].get("id"), found["metadata"]["name"]}:
                return found
    for item in cluster.models.list():  # a Model created by hand can have any object name
        if item.get("spec", {}).get("id") == name:
            return item
    raise CommandError(
        f"there is no model {name!r:.300} in namespace {cluster.namespace!r}",
        f"`{program_name()} models list` lists the existing models",
    )
