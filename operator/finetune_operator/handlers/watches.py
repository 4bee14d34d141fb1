"""The triggers of reconciles: kopf's watches on FineTunes and their children, and a slow sweep.

Only `on.event` is used: kopf's other handlers write annotations and finalizers, and a finalizer
blocks deletions while the operator is not running.
"""

import asyncio
import logging
from typing import Any

import kopf

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.core.key import SERVING, Key
from finetune_operator.handlers import watch_streams
from finetune_operator.handlers.workqueue import COMPLETION, CREATION, WorkQueue
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client, login
from finetune_operator.kube.store import Store
from finetune_operator.settings import Settings
from finetune_operator.telemetry import reconcile_metrics

WATCHED = ("finetunes", "jobs", "pods")

OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_UID}"
SWEEP_INTERVAL = 0.05  # seconds between two FineTunes: 2,000 of them cost 80 reads/s for 100 s

logger = logging.getLogger(__name__)


def watched_by(settings: Settings) -> tuple[str, ...]:
    """The plurals of the watches."""
    serves = settings.serving is not None
    models = ["models"] if settings.deletes_models or serves else []
    return (*WATCHED, *models, *(["leases"] if serves else []))


def build_registry(
    queue: WorkQueue[Key], store: Store, settings: Settings
) -> kopf.OperatorRegistry:
    """Register handlers that add a key to the queue, behind a filter that fills the store."""
    registry = kopf.OperatorRegistry()
    deletes_models, serves = settings.deletes_models, settings.serving is not None

    def is_news(plural: str, raw: JsonObject, type: str | None) -> bool:
        reconcile_metrics.HEALTH.saw_event(plural)
        if plural == "finetunes":
            return is_news_of_finetune(raw, type)
        is_of_model = names.ANNOTATION_MODEL in raw["metadata"].get("annotations", {})
        return is_of_model or store.saw(plural, raw, type)

    def is_news_of_finetune(raw: JsonObject, type: str | None) -> bool:
        is_news = store.saw("finetunes", raw, type)
        key, state = Key.of(raw), raw.get("status", {}).get("state")
        if not is_news or type == "DELETED" or state not in names.TERMINAL_STATES:
            return is_news
        # Thousands of them come at once at the start, and kopf would keep all of their objects.
        reconcile_metrics.remember(key, state)
        return not store.is_settled(key)

    async def finetune_changed(event: Any, type: str | None, **_: Any) -> None:
        raw: JsonObject = event["object"]
        key, state = Key.of(raw), raw.get("status", {}).get("state")
        if type == "DELETED":
            reconcile_metrics.forget(key)
        else:
            queue.add(key, COMPLETION if state in names.TERMINAL_STATES else CREATION)

    async def child_changed(event: Any, **_: Any) -> None:
        meta = event["object"]["metadata"]
        labels = meta.get("labels", {})
        name = labels.get(names.LABEL_FINETUNE)
        model = meta.get("annotations", {}).get(names.ANNOTATION_MODEL)
        is_serving = labels.get(names.LABEL_COMPONENT) == names.COMPONENT_SERVING
        if name:
            queue.add(Key(meta["namespace"], name), COMPLETION)
        elif model and is_serving and serves:
            queue.add(Key(meta["namespace"], model, SERVING), COMPLETION)
        elif model and not is_serving and deletes_models:
            queue.add(Key(meta["namespace"], model, "Model"), COMPLETION)

    async def lease_changed(event: Any, **options: Any) -> None:
        reconcile_metrics.HEALTH.saw_event("leases")
        await child_changed(event, **options)

    watch_streams.install(frozenset(WATCHED), is_news)
    kopf.on.login(registry=registry)(login)
    kopf.on.event(names.GROUP, names.VERSION, "finetunes", registry=registry)(finetune_changed)
    kopf.on.event("batch", "v1", "jobs", registry=registry)(child_changed)
    kopf.on.event("", "v1", "pods", registry=registry)(child_changed)
    if serves:
        kopf.on.event("coordination.k8s.io", "v1", "leases", registry=registry)(lease_changed)
    if deletes_models or serves:
        watch_models(registry, queue, settings)
    return registry


def watch_models(
    registry: kopf.OperatorRegistry, queue: WorkQueue[Key], settings: Settings
) -> None:
    """Register the handler of Models: they are served, or deleted with their files."""

    async def model_changed(event: Any, type: str | None, **_: Any) -> None:
        reconcile_metrics.HEALTH.saw_event("models")
        raw: JsonObject = event["object"]
        meta, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
        if type == "DELETED":
            return
        namespace, name = meta["namespace"], meta["name"]
        if settings.serving is not None and ("serve" in spec or "serving" in status):
            queue.add(Key(namespace, name, SERVING), CREATION)
        wants = spec.get("deletionPolicy") == "Delete"
        is_held = names.FINALIZER_MODEL in meta.get("finalizers", [])
        is_going = is_held and "deletionTimestamp" in meta
        if settings.deletes_models and (wants != is_held or is_going):
            queue.add(Key(namespace, name, "Model"), CREATION)

    kopf.on.event(names.GROUP, names.VERSION, "models", registry=registry)(model_changed)


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
    settings.watching.label_selectors["batch", "v1", "jobs"] = OURS
    settings.watching.label_selectors["", "v1", "pods"] = OURS
    settings.watching.label_selectors["coordination.k8s.io", "v1", "leases"] = OURS
    settings.watching.chunk_size = (
        250  # a list of 5,000 objects takes 330 MB at once and 100 MB in chunks
    )
    settings.queueing.worker_limit = 20
    settings.queueing.idle_timeout = (
        0.01  # with 5 s, 20 workers would process 4 objects a second, with this 2,000
    )
    return settings


async def sweep(client: Client, queue: WorkQueue[Key], store: Store, settings: Settings) -> None:
    """Observe every unsettled FineTune live from time to time, in case an event was lost.

    A watch that is opened again does not report what was deleted in the meantime.
    """
    while True:
        await asyncio.sleep(settings.sweep_seconds)
        try:
            keys = await _list_unfinished(client, store, settings.namespace)
            if settings.deletes_models:
                await _queue_deleted_models(client, queue, settings.namespace)
        except ApiError as error:
            logger.warning("the sweep could not list all objects: %s", error)
            continue
        for key in sorted(keys, key=str):
            store.doubt(key)
            queue.add(key)
            await asyncio.sleep(SWEEP_INTERVAL)


async def _list_unfinished(client: Client, store: Store, namespace: str) -> set[Key]:
    """The FineTunes that have not ended, or have Jobs that may be deleted."""
    found: dict[Key, str | None] = {}
    async for raw in client.pages(paths.finetunes(namespace)):
        found[Key.of(raw)] = raw.get("status", {}).get("state")
    reconcile_metrics.keep_only(set(found))
    store.keep_only(set(found))
    async for raw in client.pages(paths.jobs(namespace), labelSelector=OURS):
        store.saw("jobs", raw, None)
    unfinished = {key for key, state in found.items() if state not in names.TERMINAL_STATES}
    return unfinished | set(store.unsettled())


async def _queue_deleted_models(client: Client, queue: WorkQueue[Key], namespace: str) -> None:
    async for raw in client.pages(paths.models(namespace)):
        meta = raw["metadata"]
        if "deletionTimestamp" in meta:
            queue.add(Key(meta["namespace"], meta["name"], "Model"))


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
