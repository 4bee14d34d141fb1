"""The triggers of reconciles: kopf's watches on FineTunes and their children, and a slow sweep.

Only `on.event` is used: kopf's other handlers write annotations and finalizers, and a finalizer
blocks deletions while the operator is not running.
"""

import asyncio
import logging
from typing import Any

import kopf

from finetune_api import names
from finetune_api.names import State
from finetune_api.wire import JsonObject
from finetune_operator.core.key import Key
from finetune_operator.handlers.change_filter import ChangeFilter
from finetune_operator.handlers.workqueue import COMPLETION, CREATION, WorkQueue
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client, login
from finetune_operator.settings import Settings
from finetune_operator.telemetry import reconcile_metrics

WATCHED = ("finetunes", "jobs", "pods")
WATCHED_WITH_MODELS = (*WATCHED, "models")

logger = logging.getLogger(__name__)


def build_registry(
    queue: WorkQueue[Key], change_filter: ChangeFilter, *, watches_models: bool
) -> kopf.OperatorRegistry:
    """Register handlers that only add a key to the queue."""
    registry = kopf.OperatorRegistry()
    settled: set[Key] = set()  # finished, with no children to delete later

    def is_news(event: Any, type: str | None, resource: Any, **_: Any) -> bool:
        """A filter that kopf calls first: most events end here, which is cheaper than a handler."""
        reconcile_metrics.HEALTH.saw_event(resource.plural)
        raw: JsonObject = event["object"]
        is_of_model = names.ANNOTATION_MODEL in raw["metadata"].get("annotations", {})
        has_ended = raw.get("status", {}).get("state") in names.TERMINAL_STATES
        return change_filter.is_news(resource.plural, raw, type) or is_of_model or has_ended

    async def finetune_changed(event: Any, type: str | None, **_: Any) -> None:
        raw: JsonObject = event["object"]
        key, state = _key(raw), raw.get("status", {}).get("state")
        has_ttl = raw["spec"].get("ttlSecondsAfterFinished") is not None
        settled.discard(key)
        if type == "DELETED":
            reconcile_metrics.forget(key)
        elif state in names.TERMINAL_STATES:
            reconcile_metrics.remember(key, state)  # a terminal state needs no reconcile
            if state != State.FAILED and not has_ttl:
                settled.add(key)
        else:
            queue.add(key, CREATION)

    async def child_changed(event: Any, **_: Any) -> None:
        meta = event["object"]["metadata"]
        name = meta.get("labels", {}).get(names.LABEL_FINETUNE)
        model = meta.get("annotations", {}).get(names.ANNOTATION_MODEL)
        if name:
            key = Key(meta["namespace"], name)
            if key not in settled:
                queue.add(key, COMPLETION)
        elif model and watches_models:
            queue.add(Key(meta["namespace"], model, "Model"), COMPLETION)

    async def model_changed(
        namespace: str | None, name: str, spec: Any, meta: Any, type: str | None, **_: Any
    ) -> None:
        reconcile_metrics.HEALTH.saw_event("models")
        wants = spec.get("deletionPolicy") == "Delete"
        is_held = names.FINALIZER_MODEL in meta.get("finalizers", [])
        is_going = is_held and "deletionTimestamp" in meta
        if type != "DELETED" and (wants != is_held or is_going):
            queue.add(Key(namespace or "", name, "Model"), CREATION)

    kopf.on.login(registry=registry)(login)
    news: Any = {"registry": registry, "when": is_news}
    kopf.on.event(names.GROUP, names.VERSION, "finetunes", **news)(finetune_changed)
    kopf.on.event("batch", "v1", "jobs", **news)(child_changed)
    kopf.on.event("", "v1", "pods", **news)(child_changed)
    if watches_models:
        kopf.on.event(names.GROUP, names.VERSION, "models", registry=registry)(model_changed)
    return registry


class NoDiffs(kopf.DiffBaseStorage):
    """Disables kopf's diffs, which cost two copies of each object and which nothing here uses."""

    def build(self, *, body: Any, extra_fields: Any = None, ignored_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        raise AssertionError("nothing is stored on objects")


def build_kopf_settings(is_namespaced: bool) -> kopf.OperatorSettings:
    """Server-side selectors, and a bounded number of workers that release their slots early."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDiffs()
    settings.scanning.disabled = (
        is_namespaced  # the namespaced Role can list neither CRDs nor namespaces
    )
    ours = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_UID}"
    settings.watching.label_selectors["batch", "v1", "jobs"] = ours
    settings.watching.label_selectors["", "v1", "pods"] = ours
    settings.watching.chunk_size = (
        250  # a list of 5,000 objects takes 330 MB at once and 100 MB in chunks
    )
    settings.queueing.worker_limit = 20
    settings.queueing.idle_timeout = (
        0.01  # with 5 s, 20 workers would process 4 objects a second, with this 2,000
    )
    return settings


async def sweep(
    client: Client, queue: WorkQueue[Key], settings: Settings, *, watches_models: bool
) -> None:
    """Queue every unfinished FineTune periodically, in case a trigger was lost."""
    namespace = settings.namespace
    while True:
        await asyncio.sleep(settings.sweep_seconds)
        try:
            found = {_key(raw): raw for raw in await client.list(paths.finetunes(namespace))}
            reconcile_metrics.keep_only(set(found))
            for key, raw in found.items():
                if raw.get("status", {}).get("state") not in names.TERMINAL_STATES:
                    queue.add(key)
            for raw in await client.list(paths.models(namespace)) if watches_models else ():
                meta = raw["metadata"]
                if "deletionTimestamp" in meta:
                    queue.add(Key(meta["namespace"], meta["name"], "Model"))
        except ApiError as error:
            logger.warning("the sweep could not list all objects: %s", error)


def _key(raw: JsonObject) -> Key:
    return Key(raw["metadata"]["namespace"], raw["metadata"]["name"])


def dead_watches(watched: tuple[str, ...] = WATCHED) -> list[str]:
    """Return the watches that have ended: kopf ends them after a long series of 403 or 5xx answers.

    An open but silent stream is left to kopf (`watching.inactivity_timeout`, 70 s).
    """
    alive = {task.get_name() for task in asyncio.all_tasks() if not task.done()}
    return [
        plural
        for plural in watched
        if not any(name.startswith(f"watcher for {plural}") for name in alive)
    ]
