"""Which server answers for a model, whether the caller may use it, and how much it is used."""

from __future__ import annotations

from aiohttp import web

from finetune_api.model_names import resource_name
from finetune_api.wire import JsonObject
from finetune_gateway.backends.target import Target, base_target, model_target
from finetune_gateway.kube.caller import Caller
from finetune_gateway.metrics import TOKENS
from finetune_gateway.routes.context import caller, services
from finetune_gateway.routes.lookup import asking, require
from finetune_gateway.wire.completions.answers import usage_of
from finetune_gateway.wire.kube_answers import no_such


async def find_target(request: web.Request, model: str) -> Target:
    """The server of a model that the caller may use. Raises Problem.

    The API server decides: a caller uses the Models that it may get, and the models of the catalog
    if it may get Models.
    """
    parts, sender = services(request), caller(request)
    placements = parts.backends.placements
    known = placements.find(sender.fingerprint, model)
    if known is not None:
        return known
    if parts.settings.model(model) is not None:
        await require(request, "get", "models")
        found = base_target(model, parts.settings)
    else:
        found = await _of_model(request, model)
    placements.add(sender.fingerprint, model, found)
    return found


async def _of_model(request: web.Request, model: str) -> Target:
    parts, name = services(request), resource_name(model)
    with asking(request, "get", "models", model) as asked:
        if not name:
            await require(request, "get", "models")
            raise no_such(asked)
        obj = await parts.cluster.get(caller(request), "models", name)
        found = model_target(obj, model, parts.settings)
        if found is None:
            raise no_such(asked)
    return found


def count_tokens(answer: JsonObject, model: str, sender: Caller) -> None:
    """Count the tokens of an answer, or of a part of one."""
    usage = usage_of(answer)
    if usage is not None:
        TOKENS.labels(model, sender.account, "prompt").inc(usage.prompt)
        TOKENS.labels(model, sender.account, "completion").inc(usage.completion)
