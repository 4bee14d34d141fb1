"""Does what a plan says: creations that may have been done already, and the one status write."""

import logging

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_api.wire import JsonObject
from finetune_operator.build.kubernetes_event import build_event
from finetune_operator.build.train_job import build_service
from finetune_operator.core.observed import Observed
from finetune_operator.core.plan import Action, Create, CreateService, DeleteJob
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client

logger = logging.getLogger(__name__)

# Told in status.events; a Kubernetes Event each would drown the six that matter.
QUIET_REASONS = frozenset({"Advice"})


class ForeignObjectError(Exception):
    """An object with a name of ours that belongs to somebody else; it is left alone."""


class UnseenError(Exception):
    """An object of ours is there already that no look was made for: decide again with it."""


async def act(client: Client, seen: Observed, actions: tuple[Action, ...]) -> None:
    """In order. A create that was done before answers 409 and counts as done if it is ours."""
    namespace, uid = seen.finetune.metadata.namespace, seen.finetune.metadata.uid
    uids = {job.name: job.uid for job in seen.jobs}
    for action in actions:
        if isinstance(action, Create):
            made, was_there = await create_ours(client, namespace, uid, action.manifest)
            if was_there and seen.is_first:
                raise UnseenError(made["metadata"]["name"])
            uids[made["metadata"]["name"]] = made["metadata"]["uid"]
        elif isinstance(action, CreateService):
            owner = uids[action.job_name]
            service = build_service(seen.finetune, action.attempt, owner)
            await create_ours(client, namespace, uid, service)
        else:
            await delete_job(client, namespace, action)


async def create_ours(
    client: Client, namespace: str, uid: str, manifest: JsonObject
) -> tuple[JsonObject, bool]:
    """What was made, or (True) what was there already and is of the object with this UID."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    collection = paths.of_kind(kind, namespace)
    try:
        return await client.create(collection, manifest), False
    except ApiError as error:
        if error.status != 409:
            raise
    there = await client.get(f"{collection}/{name}")
    labels = there["metadata"].get("labels", {})
    owners = [owner["uid"] for owner in there["metadata"].get("ownerReferences", [])]
    wanted = [owner["uid"] for owner in manifest["metadata"].get("ownerReferences", [])]
    # A Model has no owner: its label tells whose it is.
    is_ours = owners == wanted and labels.get(names.LABEL_UID) == uid
    if not is_ours:
        owner = labels.get(names.LABEL_FINETUNE)
        raise ForeignObjectError(f"{kind} {name}" + (f" of FineTune {owner}" if owner else ""))
    return there, True


async def delete_job(client: Client, namespace: str, action: DeleteJob) -> None:
    """With its pods; one that is gone already is no error."""
    body = {"propagationPolicy": "Background", "preconditions": {"uid": action.uid}}
    try:
        await client.delete(f"{paths.jobs(namespace)}/{action.name}", body)
    except ApiError as error:
        if error.status not in {404, 409}:  # gone, or a newer one of that name
            raise


async def write_status(client: Client, finetune: FineTune, status: FineTuneStatus) -> bool:
    """Replace the whole status when it differs. False: nothing to write, or the FineTune is gone.

    A JSON patch and not a merge patch: that one would leave what is no longer there. The UID is
    tested, so a FineTune that was created anew under the same name is not touched, and the version
    that was read: an operator that was held up must not undo what another one wrote meanwhile.
    """
    new = status.to_dict()
    if new == finetune.status.to_dict():
        return False
    meta = finetune.metadata
    patch: list[JsonObject] = [
        {"op": "test", "path": "/metadata/uid", "value": meta.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version},
        {"op": "add", "path": "/status", "value": new},
    ]
    try:
        await client.json_patch(f"{paths.finetunes(meta.namespace)}/{meta.name}/status", patch)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def find_news(before: FineTuneStatus, after: FineTuneStatus) -> list[EventEntry]:
    """The lines that are new in the status and worth a Kubernetes Event."""
    told = {(entry.at, entry.message) for entry in before.events}
    return [
        entry
        for entry in after.events
        if (entry.at, entry.message) not in told and entry.reason not in QUIET_REASONS
    ]


async def post_event(client: Client, finetune: FineTune, entry: EventEntry) -> None:
    """Never an ApiError: Events are told once, or not at all."""
    namespace = finetune.metadata.namespace
    try:
        await client.create(paths.core(namespace, "events"), build_event(finetune, entry))
    except ApiError as error:
        if error.status != 409:
            logger.warning("an Event of %s was refused: %s", finetune.metadata.name, error)
