"""Which server answers for a model, whether the caller may use it, and how much it is used."""

from __future__ import annotations

from aiohttp import web

from finetune_api.catalog import CatalogModel
from finetune_gateway.backends.target import Target, base_target, model_target
from finetune_gateway.kube.caller import Caller
from finetune_gateway.metrics import TOKENS
from finetune_gateway.routes.context import caller, services
from finetune_gateway.routes.lookup import find_model
from finetune_gateway.wire.completions.answers import Usage


async def find_target(request: web.Request, model: str) -> Target:
    """The server of a model that the caller may use. Raises Problem.

    The API server decides: a caller uses the Models that it may get, and the models of the catalog
    if it may get Models.
    """
    known = services(request).backends.placements.find(caller(request).fingerprint, model)
    return known if known is not None else await read_target(request, model)


async def read_target(request: web.Request, model: str) -> Target:
    """The same, read again even if it is remembered. Raises Problem."""
    parts = services(request)
    served = await find_model(request, model)
    if isinstance(served, CatalogModel):
        found = base_target(served.name, parts.settings)
    else:
        found = model_target(served, parts.settings)
    parts.backends.placements.add(caller(request).fingerprint, model, found)
    return found


def count_tokens(usage: Usage | None, model: str, sender: Caller) -> None:
    """Count the tokens of an answer; None: its server has not counted them."""
    if usage is not None:
        TOKENS.labels(model, sender.account, "prompt").inc(usage.prompt)
        TOKENS.labels(model, sender.account, "completion").inc(usage.completion)
