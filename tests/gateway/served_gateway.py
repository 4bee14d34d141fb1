"""A gateway with a Model that the operator serves: its Service, and its Lease."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp.abc import ResolveResult

from finetune_api.model_names import resource_name
from finetune_api.wire import JsonObject
from finetune_gateway.backends.renewals import Renewals
from finetune_gateway.backends.waking import Waking
from finetune_gateway.kube_errors import KubeError
from tests.gateway.completion_gateway import TONE, Gateway, Names, free_port, gateway, own_address

# The name of the Model is curie-ft-acme-support-tone-2026-11-21-14-05-10, of which 35 characters
# count; a hyphen at their end does not.
LEASE = "mdl-curie-ft-acme-support-tone-2026-11-00000000-serve"
HOST = f"{LEASE}.ml.svc"
BODY = {"model": TONE, "prompt": "a b"}
STREAM = BODY | {"stream": True}


class Service(Names):
    """The Service of the model: its address, and the port of its pod here instead of 8000."""

    def __init__(self, addresses: dict[str, list[str]], port: int = 0) -> None:
        super().__init__(addresses)
        self.port = port
        self.ports: set[int] = set()  # that were requested

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.ports.add(port)
        found = await super().resolve(host, port, family)
        for one in found:
            one["port"] = self.port
        return found


@dataclass
class Operator:
    """What renewals of Leases meet."""

    failure: KubeError | None = None
    renewals: list[str] = field(default_factory=list)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def renew(self, lease: str) -> None:
        self.renewals.append(lease)
        self.woken.set()
        if self.failure is not None:
            raise self.failure


def status(state: str, **changes: Any) -> JsonObject:
    """Of a Model, as the operator writes it."""
    usual = {"reason": "Reason", "message": "One sentence.", "since": "2026-11-21T14:05:10Z"}
    return {"serving": {"state": state, "engine": "finetune", **usual, **changes}}


def serve(it: Gateway, found: JsonObject | None = None, **spec: Any) -> None:
    """Set spec.serve of the Model, and its status."""
    model = it.cluster.objects["models"][resource_name(TONE)]
    model["spec"]["serve"] = {"minReplicas": 0, **spec}
    model["status"] = found or {}


BROKEN = status("failed", message="The pods do not start: the image does not exist.")


@asynccontextmanager
async def served_gateway(
    operator: Operator,
    service: Names,
    found: JsonObject | None = None,
    *,
    renewals: Renewals | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway, and a Model with this status. renewals: without it, one in an hour."""
    waking = Waking(operator.renew, renewals or Renewals(3600, 3600))
    options = {"waking": waking, **settings.pop("options", {})}
    async with gateway(resolver=service, options=options, servesModels=True, **settings) as it:
        serve(it, found)
        yield it


async def without_pods() -> Service:
    """A Service whose pods do not listen."""
    return Service({HOST: [own_address()]}, await free_port())


def error_in(lines: list[str]) -> Any:
    """The error in a stream, which is its end."""
    assert "data: [DONE]" not in lines
    return json.loads(lines[-1].removeprefix("data: "))["error"]


async def refusal(it: Gateway, body: Any = BODY) -> tuple[int, Any, Any]:
    """The status, the error, and the headers of a request that is refused."""
    async with it.client.post(f"{it.url}/completions", json=body, headers=it.headers) as response:
        return response.status, (await response.json())["error"], response.headers
