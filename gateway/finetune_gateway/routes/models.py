"""Models: `/v1/models`."""

from __future__ import annotations

from aiohttp import web

from finetune_api.catalog import CatalogModel
from finetune_gateway.routes.context import caller, services
from finetune_gateway.routes.lookup import asking, find_model, list_models, require
from finetune_gateway.wire.models import OBJECT, catalog_object, deleted_object, model_object
from finetune_gateway.wire.pages import list_object
from finetune_web.answers import json_response
from finetune_web.problems import invalid


async def list_all(request: web.Request) -> web.Response:
    """The base models in the order of the catalog, then the fine-tuned ones, oldest first."""
    settings = services(request).settings
    models = await list_models(request)
    base = [catalog_object(entry) for entry in settings.models]
    names = {entry.name for entry in settings.models}
    tuned = [
        model_object(model, settings.shown_organization)
        for model in models
        if model.spec.id not in names  # the catalog comes first
    ]
    return json_response(list_object([*base, *tuned]))


async def get(request: web.Request) -> web.Response:
    found = await find_model(request, request.match_info["id"])
    if isinstance(found, CatalogModel):
        return json_response(catalog_object(found))
    return json_response(model_object(found, services(request).settings.shown_organization))


async def delete(request: web.Request) -> web.Response:
    """Delete the Model. Its files follow its deletion policy."""
    model_id = request.match_info["id"]
    found = await find_model(request, model_id)
    if isinstance(found, CatalogModel):
        raise invalid(
            f"The model {model_id} is a base model of the catalog, which cannot be deleted. An "
            "administrator can remove it from the values of the chart.",
            "model",
            "base_model",
        )
    parts, name = services(request), found.metadata.name
    if parts.settings.deletes_files and found.spec.deletion_policy != "Delete":
        # A caller without the right must not change what happens to the files.
        await require(request, "delete", "models")
        with asking(request, "patch", "models", model_id):
            policy = {"spec": {"deletionPolicy": "Delete"}}
            await parts.cluster.patch(caller(request), "models", name, policy)
    with asking(request, "delete", "models", model_id):
        await parts.cluster.delete(caller(request), "models", name)
    return json_response(deleted_object(model_id, OBJECT))


ROUTES: list[web.RouteDef] = [
    web.get("/v1/models", list_all),
    web.get("/v1/models/{id}", get),
    web.delete("/v1/models/{id}", delete),
]
