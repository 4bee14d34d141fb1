"""What kopf gets of the watches: only news, decoded without its own decoder."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest
from kopf._cogs.aiokits import aiotoggles
from kopf._cogs.clients import api, watching
from kopf._cogs.structs.references import Resource
from kopf._core.reactor import queueing

from finetune_operator.handlers import watch_streams


@pytest.fixture(autouse=True)
def kopf_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "infinite_watch", watching.infinite_watch)
    monkeypatch.setattr(api, "json", api.json)


def event(name: str, kind: str | None = "MODIFIED") -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"name": name, "uid": name}}}


def watched(*events: Any) -> Any:
    async def watch(**_: Any) -> AsyncIterator[Any]:
        for one in events:
            yield one

    return watch


def is_news(plural: str, raw: Any, type: str | None) -> bool:
    name: str = raw["metadata"]["name"]
    assert name != "broken"
    return name.startswith("news")


async def test_a_processor_of_kopf_gets_only_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events = [event("old"), event("news-1", None), event("broken"), event("news-2")]
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}
    watch = watched(*events[:2], watching.Bookmark.LISTED, bookmark, *events[2:])
    monkeypatch.setattr(watch_streams, "_watch", watch)
    watch_streams.install(frozenset({"pods"}), is_news)
    seen: dict[str, list[str]] = {"pods": [], "secrets": []}

    async def follow(plural: str) -> None:
        async def processor(*, raw_event: Any, **_: Any) -> None:
            seen[plural].append(raw_event["object"]["metadata"]["name"])

        settings = kopf.OperatorSettings()
        settings.queueing.idle_timeout = 0.01
        toggles = aiotoggles.ToggleSet(all)
        await queueing.watcher(
            namespace=None,
            settings=settings,
            resource=Resource("", "v1", plural, namespaced=True),
            processor=processor,  # type: ignore[arg-type]
            operator_indexed=toggles,
            resource_indexed=await toggles.make_toggle(),
        )

    with caplog.at_level(logging.ERROR):
        await asyncio.gather(follow("pods"), follow("secrets"))
    assert sorted(seen["pods"]) == ["news-1", "news-2"]
    assert sorted(seen["secrets"]) == ["broken", "news-1", "news-2", "old"]
    assert caplog.text.count("an event of pods cannot be read") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"type": "ADDED", "n": 1.5}', {"type": "ADDED", "n": 1.5}),
        ('{"a": "\\ud800"}', {"a": "\ud800"}),  # orjson refuses it
        ('{"a": 9223372036854775807}', {"a": 9223372036854775807}),
    ],
)
def test_a_line_is_decoded_as_json_decodes_it(text: str, value: Any) -> None:
    assert watch_streams.decode(text) == value


def test_a_line_that_is_no_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1"):
        watch_streams.decode('{"type": "ADDED"')


def test_this_version_of_kopf_decodes_lines_with_the_name_that_is_replaced() -> None:
    watch_streams.install(frozenset(), is_news)
    assert "json.loads(line" in inspect.getsource(api.stream)
    assert api.json.loads is watch_streams.decode
