"""The key of a folder, and who is refused."""

import stat
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from finetune_api.api_keys import is_key
from finetune_local.access import OwnKey, load_key, refuse_pages
from finetune_web.answers import problem_response
from finetune_web.problems import Problem


def test_the_key_is_random_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = load_key(path)
    assert is_key(key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path) == key
    path.write_text("damaged")
    assert load_key(path) not in {key, "damaged"}
    assert load_key(tmp_path / "other") != load_key(path)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic x", "Bearer x", "key", "\udcff"]
)
def test_another_key_is_refused(header: str) -> None:
    with pytest.raises(Problem) as caught:
        OwnKey("sk-ft-right")(header)
    assert caught.value.status == 401
    assert "finetune serve" in caught.value.message


def test_the_key_is_accepted() -> None:
    assert OwnKey("sk-ft-right")("bearer sk-ft-right").account == "you"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8000"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "http://127.0.0.1"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
async def test_requests_of_pages_and_for_other_names_are_refused(
    headers: dict[str, str], status: int
) -> None:
    @web.middleware
    async def envelope(request: web.Request, handler: object) -> web.StreamResponse:
        try:
            return await handler(request)  # type: ignore[operator]
        except Problem as problem:
            return problem_response(problem)

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=[envelope, refuse_pages])
    app.router.add_get("/", answer)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/", headers=headers)
        assert response.status == status
