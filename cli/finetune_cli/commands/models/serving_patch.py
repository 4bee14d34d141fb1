"""Patches spec.serve of a Model."""

from __future__ import annotations

from http import HTTPStatus

from finetune_api.model import Model
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster
from finetune_cli.cluster.errors import ApiError
from finetune_cli.cluster.objects import read_model
from finetune_cli.terminal.errors import CommandError


def patch_serve(cluster: Cluster, model: Model, fields: JsonObject | None) -> Model:
    """Merge these fields into spec.serve; None removes it. Return the Model after the patch.

    Raises ApiError, and CommandError if the API server does not know the field.
    """
    try:
        patched = cluster.models.patch_spec(model.metadata.name, serve=fields)
    except ApiError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        raise CommandError(
            error.message,
            "only owners may change Models: ask an administrator for the chart's Role "
            "finetune-owner in this namespace",
        ) from error
    found = read_model(patched)
    if fields is not None and found.spec.serve is None:  # pruned, without an error
        raise CommandError(
            "the Models of this cluster have no field spec.serve: its CRDs are of an older release",
            "ask an administrator to upgrade the CRDs and the operator: docs/how-to/upgrade.md",
        )
    return found
