"""Kubernetes Events follow the statuses that they tell of, and hold up none of them."""

import asyncio
import logging

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_operator.kube.act import find_news, post_event
from finetune_operator.kube.client import Client

POSTERS = 2  # an end has five Events: with more posters a flood of ends would wait for them
WAITING_AT_MOST = 10_000
LAST_WORDS_SECONDS = 3.0

logger = logging.getLogger(__name__)


class EventRecorder:
    """Best effort: the story itself stands in `status.events`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: asyncio.Queue[tuple[FineTune, EventEntry]] = asyncio.Queue(WAITING_AT_MOST)

    def announce(self, before: FineTune, status: FineTuneStatus) -> None:
        """What a status that was just written says and the one before did not."""
        for entry in find_news(before.status, status):
            try:
                self._waiting.put_nowait((before, entry))
            except asyncio.QueueFull:
                name = before.metadata.name
                logger.warning("too many Events wait: %s of %s is not told", entry.reason, name)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(POSTERS):
                group.create_task(self._post())

    async def _post(self) -> None:
        while True:
            finetune, entry = await self._waiting.get()
            try:
                await post_event(self._client, finetune, entry)
            except Exception:
                logger.exception("an Event of %s is not told", finetune.metadata.name)
            finally:
                self._waiting.task_done()

    async def finish(self) -> None:
        """Wait, not for long, until all are posted."""
        try:
            await asyncio.wait_for(self._waiting.join(), LAST_WORDS_SECONDS)
        except TimeoutError:
            logger.warning("%d Events are not told", self._waiting.qsize())
