"""The OpenAPI document: valid, complete, and equal to what the parsers of requests accept."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import validate

from finetune_gateway.main import ROUTES
from finetune_gateway.wire import request_bodies
from finetune_gateway.wire.completions.requests import FIELDS, Endpoint
from finetune_gateway.wire.openapi.document import build_document
from tests.support.gateway_app import gateway_app, gateway_services

DOCUMENT = build_document()


def fields(name: str) -> set[str]:
    return set(DOCUMENT["components"]["schemas"][name]["properties"])


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_the_document_has_every_route_and_no_other() -> None:
    routes = {(it.method.lower(), re.sub(r":[^}]*}", "}", it.path)) for it in ROUTES}
    documented = {(verb, path) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}
    assert documented == routes


@pytest.mark.parametrize(
    ("schema", "accepted"),
    [
        ("NewFineTune", request_bodies._FINE_TUNE),
        ("NewJob", request_bodies._JOB | {"integrations"}),
        ("NewCompletion", {*FIELDS[Endpoint.COMPLETIONS], "model"}),
        ("NewChatCompletion", {*FIELDS[Endpoint.CHAT], "model"}),
    ],
)
def test_a_request_has_the_fields_that_its_parser_accepts(schema: str, accepted: Any) -> None:
    assert fields(schema) == set(accepted)


async def test_the_gateway_serves_the_document() -> None:
    app = gateway_app(gateway_services(), ROUTES)
    async with TestClient(TestServer(app)) as client:
        async with client.get("/v1/openapi.json") as response:
            assert response.status == 401
        headers = {"Authorization": "Bearer sk-ft-anna"}
        async with client.get("/v1/openapi.json", headers=headers) as response:
            assert await response.json() == DOCUMENT
