"""What the gateway's benchmark makes of times, and the servers behind its gateway."""

from __future__ import annotations

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from bench.gateway.__main__ import evaluate
from bench.gateway.load import Pair, percentile
from bench.gateway.peers import MODEL, PARTS, RESOURCE, build_apps
from finetune_api.model import Model
from finetune_api.model_names import resource_name


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1, 100), (0, 1)])
def test_a_percentile_is_a_measured_value(share: float, expected: float) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_the_targets_apply_to_what_the_gateway_adds() -> None:
    slow = Pair(gateway=[7.0] * 98 + [40.0] * 2, direct=[1.0] * 100)
    fast = Pair(gateway=[3.0] * 100, direct=[1.0] * 100)
    lines = {
        line.name: line
        for line in evaluate([slow, slow, fast], [fast] * 3, [fast] * 3, [9.0], (90.0, 120.0))
    }
    added = lines["added by the gateway, p50"]
    assert (added.values, added.ratio, added.is_met) == ([6.0, 6.0, 2.0], 6.0, False)
    worst = lines["added by the gateway, p99"]
    assert (worst.ratio, worst.is_met) == (39.0, False)
    assert lines["idle"].is_met
    assert lines["after all requests"].is_met is None


async def test_the_servers_behind_the_gateway_answer_as_its_code_expects() -> None:
    completions, api = build_apps()
    async with TestClient(TestServer(completions)) as client:
        whole = await client.post("/v1/completions", json={"model": MODEL, "prompt": "a"})
        assert (await whole.json())["usage"]["completion_tokens"] == 60
        stream = await client.post("/v1/completions", json={"model": MODEL, "stream": True})
        events = (await stream.text()).split("\n\n")
    assert len(events) == PARTS + 3  # with the usage, the end, and nothing after it
    assert json.loads(events[0].removeprefix("data: "))["model"] == MODEL
    assert resource_name(MODEL) == RESOURCE
    async with TestClient(TestServer(api)) as client:
        path = f"/apis/finetune.dev/v1alpha1/namespaces/bench/models/{RESOURCE}"
        found = Model.parse(await (await client.get(path)).json())
        assert found.spec.id == MODEL
        assert (await client.get(path + "x")).status == 404
