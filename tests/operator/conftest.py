"""An API server with the answers that a test sets."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web


class Answers(dict[str, Any]):
    """Map a path to items, an HTTP status, an object, or a function. `asked`: the requests."""

    asked: list[tuple[str, dict[str, str]]]


@pytest.fixture
async def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Answers]:
    found = Answers()
    found.asked = []

    async def handle(request: web.Request) -> web.Response:
        found.asked.append((request.path, dict(request.query)))
        answer = found.get(request.path, 404)
        if callable(answer):
            answer = answer()
        if isinstance(answer, int):
            return web.json_response({"message": "no"}, status=answer)
        return web.json_response(answer if isinstance(answer, dict) else {"items": answer})

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield found
    await runner.cleanup()
