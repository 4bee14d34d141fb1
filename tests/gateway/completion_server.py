"""A small server of completions: the peer of the gateway in its tests.

It implements /v1/completions and /v1/chat/completions with echo, several choices, log
probabilities, streams, and vLLM's errors. Its model writes the words of the prompt in reverse.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class CompletionServer:
    """What the server does, and what it has received."""

    models: set[str] = field(default_factory=lambda: {"served-name"})
    loads: int = 0  # the number of requests that get 503, as llama.cpp answers while it loads
    pause: float = 0.0  # seconds between two parts of a stream
    breaks_after: int | None = None  # the number of parts after which a stream breaks off
    has_template: bool = True
    override: Answer | None = None  # answers instead
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)  # a client left within a stream

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if request.method == "POST":
            self.bodies.append(json.loads(await request.text()))
        if self.override is not None:
            return await self.override(request)
        if self.loads:
            self.loads -= 1
            return error(503, "Loading model", code=503)
        body = self.bodies[-1]
        if any(value is None for value in body.values()):
            return error(400, "Input should be a valid integer: null")
        if body.get("model") not in self.models:
            return error(404, f"The model `{body.get('model')}` does not exist.", code=404)
        if request.path == "/v1/completions":
            return await self._complete(request, body)
        if request.path == "/v1/chat/completions":
            return await self._chat(request, body)
        return web.json_response({"detail": "Not Found"}, status=404)

    async def _complete(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        texts = [reverse(prompt) for prompt in prompts for _ in range(body.get("n", 1))]
        if body.get("echo"):
            texts = [prompts[at // body.get("n", 1)] + text for at, text in enumerate(texts)]
        if max(len(prompt) for prompt in prompts) > 5000:
            return error(400, "This model's maximum context length is 5000 tokens.")
        choices = [
            {"index": at, "text": text, "logprobs": scores(body, text), "finish_reason": "stop"}
            for at, text in enumerate(texts)
        ]
        whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        usage = {"prompt_tokens": 3, "completion_tokens": len(texts), "total_tokens": 9}
        if not body.get("stream"):
            return web.json_response({**whole, "choices": choices, "usage": usage})
        parts = [
            {**whole, "choices": [{**choice, "text": piece}]}
            for choice in choices
            for piece in pieces(choice["text"])
        ]
        return await self._stream(request, body, parts, {**whole, "choices": [], "usage": usage})

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not self.has_template:
            return error(
                400,
                "As of transformers v4.44, default chat template is no longer allowed, so you must "
                "provide a chat template if the tokenizer does not define one.",
            )
        text = reverse(body["messages"][-1]["content"])
        whole = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "stop"}
            message = {"role": "assistant", "content": text}
            return web.json_response(
                {
                    **whole,
                    "object": "chat.completion",
                    "choices": [{**choice, "message": message}],
                    "usage": usage,
                }
            )
        whole["object"] = "chat.completion.chunk"
        parts = [
            {**whole, "choices": [{"index": 0, "delta": {"content": piece}}]}
            for piece in pieces(text)
        ]
        return await self._stream(request, body, parts, {**whole, "choices": [], "usage": usage})

    async def _stream(
        self,
        request: web.Request,
        body: dict[str, Any],
        parts: list[dict[str, Any]],
        last: dict[str, Any],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        if (body.get("stream_options") or {}).get("include_usage"):
            parts = [*parts, last]
        try:
            for number, part in enumerate(parts):
                if number == self.breaks_after:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                await response.write(b"data: " + json.dumps(part).encode() + b"\r\n\r\n")
                await asyncio.sleep(self.pause)
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:
            self.lost.set()
        return response


def reverse(prompt: Any) -> str:
    """The completion: text of the prompt's words or tokens in reverse."""
    words = prompt.split() if isinstance(prompt, str) else [str(token) for token in prompt]
    return " ".join(reversed(words))


def pieces(text: str) -> list[str]:
    return [text[at : at + 4] for at in range(0, len(text), 4)] or [""]


def scores(body: dict[str, Any], text: str) -> dict[str, Any] | None:
    if body.get("logprobs") is None:
        return None
    return {"tokens": [text], "token_logprobs": [-0.5], "top_logprobs": [{text: -0.5}]}


def error(status: int, message: str, *, code: int = 400) -> web.Response:
    """vLLM's envelope: `code` is a number."""
    return web.json_response(
        {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}},
        status=status,
    )


@asynccontextmanager
async def serving(
    app: web.Application, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """Serve the application on a port, which is the result."""
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def until(is_reached: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a state that no event announces."""
    async with asyncio.timeout(seconds):
        while not is_reached():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
