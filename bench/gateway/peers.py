"""`python -m bench.gateway.peers`: the servers behind the gateway, which answer at once.

It prints their ports as JSON and runs until it is terminated.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

MODEL = "curie:ft-bench:tone-2026-11-21-14-05-10"
RESOURCE = "curie-ft-bench-tone-2026-11-21-14-05-10"
NAMESPACE = "bench"
PARTS = 100  # of a stream
TEXT = " a word" * 30
USAGE = {"prompt_tokens": 60, "completion_tokens": 60, "total_tokens": 120}


def _choice(text: str) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": "length"}


def _answer(*choices: dict[str, Any], **more: Any) -> bytes:
    whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL}
    return json.dumps({**whole, "choices": choices, **more}).encode()


WHOLE = _answer(_choice(TEXT), usage=USAGE)
PART = b"data: " + _answer(_choice(" a word")) + b"\n\n"
LAST = b"data: " + _answer(usage=USAGE) + b"\n\ndata: [DONE]\n\n"


async def complete(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if not body.get("stream"):
        return web.Response(body=WHOLE, content_type="application/json")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(PARTS):
        await response.write(PART)
    await response.write(LAST)
    return response


async def get_model(request: web.Request) -> web.Response:
    spec = {
        "id": MODEL,
        "uri": "s3://bench/model",
        "base": "curie",
        "pretrainingLearningRate": 0.001,
        "contextLength": 2048,
    }
    name = request.match_info["name"]
    if name != RESOURCE:
        return web.json_response({"kind": "Status", "code": 404, "message": "none"}, status=404)
    metadata = {"name": name, "namespace": NAMESPACE, "uid": "1", "resourceVersion": "1"}
    return web.json_response({"kind": "Model", "metadata": metadata, "spec": spec})


async def is_ready(_: web.Request) -> web.Response:
    return web.json_response({})


def build_apps() -> tuple[web.Application, web.Application]:
    """The server of completions, and the API server."""
    completions, api = web.Application(), web.Application()
    completions.router.add_post("/v1/completions", complete)
    path = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/models/{{name}}"
    api.router.add_get(path, get_model)
    api.router.add_get("/{path:.*}", is_ready)
    return completions, api


async def main() -> None:
    ports = {}
    for name, app in zip(("completions", "api"), build_apps(), strict=True):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports[name] = runner.addresses[0][1]
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
