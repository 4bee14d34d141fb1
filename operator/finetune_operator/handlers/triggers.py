"""What wakes a reconcile: kopf's watches on FineTunes and on what they own, and one slow sweep.

Only `on.event`: kopf's other handlers write annotations and finalizers, and a finalizer hangs a
deletion while the operator is away.
"""

import asyncio
import logging
from typing import Any

import kopf

from finetune_api import names
from finetune_operator.handlers import metrics
from finetune_operator.handlers.queue import COMPLETION, CREATION, WorkQueue
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client, login
from finetune_operator.kube.observe import Key

SWEEP_SECONDS = 300.0
WATCHED = ("finetunes", "jobs", "pods")

logger = logging.getLogger(__name__)


def build_registry(queue: WorkQueue[Key]) -> kopf.OperatorRegistry:
    """Handlers that only put a key on the queue."""
    registry = kopf.OperatorRegistry()

    async def finetune_changed(
        namespace: str | None, name: str, status: Any, type: str | None, **_: Any
    ) -> None:
        metrics.HEALTH.saw_event("finetunes")
        key = Key(namespace or "", name)
        state = status.get("state")
        if type == "DELETED":
            metrics.forget(key)
        elif state in names.TERMINAL_STATES:
            metrics.remember(key, state)  # terminal is terminal: no reconcile, no write
        else:
            queue.add(key, CREATION)

    async def child_changed(
        namespace: str | None, labels: Any, resource: kopf.Resource, **_: Any
    ) -> None:
        metrics.HEALTH.saw_event(resource.plural)
        name = labels.get(names.LABEL_FINETUNE)
        if name:
            queue.add(Key(namespace or "", name), COMPLETION)

    kopf.on.login(registry=registry)(login)
    kopf.on.event(names.GROUP, names.VERSION, "finetunes", registry=registry)(finetune_changed)
    kopf.on.event("batch", "v1", "jobs", registry=registry)(child_changed)
    kopf.on.event("", "v1", "pods", registry=registry)(child_changed)
    return registry


def build_kopf_settings(is_namespaced: bool) -> kopf.OperatorSettings:
    """Server-side selectors; a bounded number of workers that give their slot back at once."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = is_namespaced  # that Role lists neither CRDs nor namespaces
    ours = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_UID}"
    settings.watching.label_selectors["batch", "v1", "jobs"] = ours
    settings.watching.label_selectors["", "v1", "pods"] = ours
    settings.queueing.worker_limit = 20
    settings.queueing.idle_timeout = 0.1  # with 5 s, 20 workers give 4 objects a second
    return settings


async def sweep(client: Client, queue: WorkQueue[Key], namespace: str) -> None:
    """Looks at every FineTune that has not ended, for the trigger that got lost."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            for raw in await client.list(paths.finetunes(namespace)):
                if raw.get("status", {}).get("state") not in names.TERMINAL_STATES:
                    queue.add(Key(raw["metadata"]["namespace"], raw["metadata"]["name"]))
        except ApiError as error:
            logger.warning("the sweep could not list FineTunes: %s", error)


def dead_watches() -> list[str]:
    """Watches that have ended while the process lives: kopf lets them die on a long 403 or 5xx.

    An open but silent stream is kopf's own affair (`watching.inactivity_timeout`, 70 s).
    """
    alive = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
    return [
        plural
        for plural in WATCHED
        if not any(name.startswith(f"watcher for {plural}") for name in alive)
    ]
