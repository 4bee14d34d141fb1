"""Posts Kubernetes Events after the status writes that they report, without delaying those."""

import asyncio
import logging
from datetime import UTC, datetime

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_operator import messages
from finetune_operator.build.kubernetes_event import build_event
from finetune_operator.core.status_builder import to_entry
from finetune_operator.kube.act import find_new_events, post_event
from finetune_operator.kube.client import Client

POSTERS = 2  # with more, the requests for Events would compete with those of the reconciles
WAITING_AT_MOST = 10_000
REFUSED_AT_MOST = 1_000
FLUSH_SECONDS = 3.0  # at the end of the process

logger = logging.getLogger(__name__)


class EventRecorder:
    """Posts Events on a best-effort basis; `status.events` is the complete record."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: asyncio.Queue[tuple[FineTune, EventEntry]] = asyncio.Queue(WAITING_AT_MOST)
        self._refused: dict[str, str] = {}  # UID -> the reported cause

    def record(self, before: FineTune, status: FineTuneStatus) -> None:
        """Queue the Events that are new in a status that was just written."""
        self._refused.pop(before.metadata.uid, None)
        for entry in find_new_events(before.status, status):
            self._add(before, entry)

    def report_refused_status(self, finetune: FineTune, cause: str) -> None:
        """Queue one Event on a status that the API server refuses: nothing else can report it."""
        uid = finetune.metadata.uid
        if self._refused.get(uid) == cause:
            return
        if len(self._refused) >= REFUSED_AT_MOST:
            self._refused.clear()
        self._refused[uid] = cause
        self._add(finetune, to_entry(messages.status_refused(cause), datetime.now(UTC)))

    def _add(self, finetune: FineTune, entry: EventEntry) -> None:
        try:
            self._waiting.put_nowait((finetune, entry))
        except asyncio.QueueFull:
            name = finetune.metadata.name
            logger.warning(
                "too many Events are waiting: %s of %s is not posted", entry.reason, name
            )

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(POSTERS):
                group.create_task(self._post())

    async def _post(self) -> None:
        while True:
            finetune, entry = await self._waiting.get()
            try:
                await post_event(self._client, build_event(finetune, entry))
            except Exception:
                logger.exception("an Event of %s is not posted", finetune.metadata.name)
            finally:
                self._waiting.task_done()

    async def finish(self) -> None:
        """Wait a short time until all Events are posted."""
        try:
            await asyncio.wait_for(self._waiting.join(), FLUSH_SECONDS)
        except TimeoutError:
            logger.warning("%d Events are not posted", self._waiting.qsize())
