"""kopf's watch streams, decoded fast and without the events that no decision depends on.

Four of five events are such. kopf has filters only behind a task, three loggers, and the search for
handlers, which cost more than a reconcile, and decodes each line with `json`. So two names of
kopf's modules are replaced here; its version is pinned, and a test runs its watcher.
"""

import json
import logging
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import orjson
from kopf._cogs.clients import api, watching

from finetune_api.wire import JsonObject

IsNews = Callable[[str, JsonObject, str | None], bool]  # of (plural, object, type of the event)

CHANGES = {None, "ADDED", "MODIFIED", "DELETED"}  # None: of a list

_watch = watching.infinite_watch

logger = logging.getLogger(__name__)


def decode(text: str) -> Any:
    """A line of a stream. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)  # orjson refuses lone surrogates


def install(plurals: frozenset[str], is_news: IsNews) -> None:
    """Give kopf only the events of these resources that are news, and all of others.

    An object for which `is_news` raises is logged and dropped: the sweep looks at its FineTune.
    """

    async def filtered(*, resource: Any, **options: Any) -> AsyncIterator[Any]:
        stream = _watch(resource=resource, **options)
        async for event in stream:
            # neither kopf's own marks nor the API server's bookmarks are about an object
            if resource.plural in plurals and isinstance(event, dict) and event["type"] in CHANGES:
                raw: Any = event["object"]
                try:
                    if not is_news(resource.plural, raw, event["type"]):
                        continue
                except Exception:
                    logger.exception("an event of %s cannot be read", resource.plural)
                    continue
            yield event

    watching.infinite_watch = filtered
    vars(api)["json"] = SimpleNamespace(loads=decode)
