"""Carries out a plan: idempotent creations, deletions, and one status write."""

import logging

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_api.wire import JsonObject
from finetune_operator.build.pod_group import build_pod_group
from finetune_operator.build.train_job import build_service, job_reference
from finetune_operator.core.model_files import describes_same_files
from finetune_operator.core.observed import ForeignObject, Observed
from finetune_operator.core.plan import Action, Create, CreateService, DeleteJob
from finetune_operator.core.refusals import Refusal
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.store import Store

logger = logging.getLogger(__name__)

NOT_FOUND, CONFLICT = 404, 409
NO_DRY_RUN = "does not support dry run"  # a webhook with side effects

# Only in status.events: a Kubernetes Event for each would hide the important ones. The last two
# come together with Started and ModelUploaded, and one Event costs the API server 2 ms.
QUIET_REASONS = frozenset({"Advice", "BaseModelLoaded", "ResultsUploaded"})


class ForeignObjectError(Exception):
    """An object of another owner has a name that we need. It is left alone."""

    def __init__(self, found: ForeignObject) -> None:
        super().__init__(str(found))
        self.found = found


class OutdatedError(Exception):
    """A child exists or has changed that was observed differently: observe it live."""


class RefusedError(Exception):
    """The API server did not carry out an action of a plan.

    unserved: the Job whose Service it refused.
    """

    def __init__(self, refusal: Refusal, error: ApiError) -> None:
        super().__init__(f"{refusal.verb} {refusal.kind} {refusal.name}: {error}")
        self.refusal = refusal
        self.unserved: DeleteJob | None = None


async def act(
    client: Client, store: Store, observed: Observed, actions: tuple[Action, ...]
) -> None:
    """Carry out the actions in order, and note the answers in the store.

    A create that answers 409 is done if the object is ours. Raise RefusedError at the first one
    that fails, and OutdatedError if the observation was older than the object: a Job that it lacks
    exists, or a Job to delete has changed.
    """
    namespace, uid = observed.finetune.metadata.namespace, observed.finetune.metadata.uid
    uids = {job.name: job.uid for job in observed.jobs}
    if observed.finetune.status.reason in names.REFUSAL_REASONS:
        await _try_services(client, observed, actions)
    for action in actions:
        if isinstance(action, Create):
            found, has_existed = await create_ours(client, namespace, uid, action.manifest)
            if action.manifest["kind"] == "Job":
                store.saw("jobs", found, None)
                if has_existed and not observed.is_live:
                    raise OutdatedError(found["metadata"]["name"])
            uids[found["metadata"]["name"]] = found["metadata"]["uid"]
        elif isinstance(action, CreateService):
            owner = uids[action.job_name]
            made = _with_job(observed.finetune, action, owner)
            try:
                for manifest in made:
                    await create_ours(client, namespace, uid, manifest)
            except RefusedError as error:
                error.unserved = DeleteJob(action.job_name, owner)
                raise
            store.serve(uid, [owner])
        else:
            await _delete(client, store, observed, action)


def _with_job(finetune: FineTune, action: CreateService, uid: str) -> list[JsonObject]:
    """What an attempt needs besides its Job. The Service is the last one: it is looked for."""
    service = build_service(finetune, action.attempt, uid)
    if not action.group_version:
        return [service]
    owner = job_reference(action.job_name, uid)
    return [build_pod_group(finetune, action.attempt, owner, action.group_version), service]


async def _delete(client: Client, store: Store, observed: Observed, action: DeleteJob) -> None:
    meta = observed.finetune.metadata
    versions = {job.uid: job.version for job in observed.jobs}
    answer = await delete_job(client, meta.namespace, action, versions.get(action.uid))
    if "deletionTimestamp" in answer.get("metadata", {}):  # a finalizer keeps it
        store.saw("jobs", answer, None)
    else:
        store.remove_job(meta.uid, action.uid)


async def _try_services(client: Client, observed: Observed, actions: tuple[Action, ...]) -> None:
    """Ask whether the Service of a Job would be refused again before the Job is created.

    A webhook may refuse dry runs. Then the creation itself shows it.
    """
    made = {item.manifest["metadata"]["name"] for item in actions if isinstance(item, Create)}
    namespace = observed.finetune.metadata.namespace
    for action in actions:
        if isinstance(action, CreateService) and action.job_name in made:
            service = build_service(observed.finetune, action.attempt, "not-created-yet")
            try:
                await client.create(paths.core(namespace, "services"), service, dryRun="All")
            except ApiError as error:
                refusal = to_refusal("create", "Service", action.job_name, error)
                if error.status != CONFLICT and NO_DRY_RUN not in error.message:
                    raise RefusedError(refusal, error) from error


async def withdraw(
    client: Client,
    store: Store,
    observed: Observed,
    actions: tuple[Action, ...],
    job: DeleteJob,
) -> None:
    """Delete the Job of a refused Service, so that its pods do not hold GPUs without DNS.

    A Job whose attempt is recorded stays: its deletion would end the FineTune.
    """
    made = {item.manifest["metadata"]["name"] for item in actions if isinstance(item, Create)}
    recorded = {item.number for item in observed.finetune.status.attempts}
    numbers = {known.name: number for number, known in observed.attempts.items()}
    if job.name not in made and numbers.get(job.name) in recorded:
        return
    try:
        await _delete(client, store, observed, job)
    except RefusedError as error:
        logger.warning("a Job without a Service remains: %s", error)


def to_refusal(
    verb: str, kind: str, name: str, error: ApiError, model: tuple[str, str] | None = None
) -> Refusal:
    return Refusal(verb, kind, name, error.status, error.message, error.causes, model)


async def create_ours(
    client: Client, namespace: str, uid: str, manifest: JsonObject
) -> tuple[JsonObject, bool]:
    """Return the object, and whether it existed before.

    uid: of the FineTune or Model that the object belongs to. Raise ForeignObjectError if an
    existing object belongs to another one, and RefusedError if it cannot be created.
    """
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    collection = paths.of_kind(kind, namespace, manifest["apiVersion"])
    spec = manifest["spec"]
    model = (spec["id"], spec["uri"]) if kind == "Model" else None
    try:
        return await client.create(collection, manifest), False
    except ApiError as error:
        refused = RefusedError(to_refusal("create", kind, name, error, model), error)
        if error.status != CONFLICT:
            raise refused from error
    try:
        existing = await client.get(f"{collection}/{name}")
    except ApiError as error:
        if error.status == NOT_FOUND:  # the 409 had another cause, such as a webhook
            raise refused from error
        raise RefusedError(to_refusal("get", kind, name, error), error) from error
    labels = existing["metadata"].get("labels", {})
    owners = [owner["uid"] for owner in existing["metadata"].get("ownerReferences", [])]
    wanted = [owner["uid"] for owner in manifest["metadata"].get("ownerReferences", [])]
    # A Model has no owner reference: its label has the UID.
    is_ours = owners == wanted and labels.get(names.LABEL_UID) == uid
    if kind == "Model" and not is_ours and describes_same_files(manifest, existing):
        return existing, True  # of the former FineTune, for example from a backup
    if not is_ours and labels.get(names.LABEL_UID) == uid and _is_left_behind(existing, manifest):
        message = f"{kind} {name} still belongs to a Job of this name that was deleted"
        raise ApiError(CONFLICT, f"{message}; the garbage collector removes it")
    if not is_ours:
        raise ForeignObjectError(ForeignObject(kind, name, labels.get(names.LABEL_FINETUNE)))
    return existing, True


def _is_left_behind(existing: JsonObject, manifest: JsonObject) -> bool:
    """Whether the owners of an object have the names of the wanted ones and other UIDs.

    Such an owner is gone. The request for the object was committed after the operator gave up.
    """
    found, wanted = (
        [(owner["kind"], owner["name"]) for owner in item["metadata"].get("ownerReferences", [])]
        for item in (existing, manifest)
    )
    return bool(found) and found == wanted


async def delete_job(
    client: Client, namespace: str, action: DeleteJob, version: str | None = None
) -> JsonObject:
    """Delete the Job with its pods, and return the answer; {} if it does not exist any more.

    version: the resource version that was decided on. Raise OutdatedError if the Job has changed
    since, or is a newer one of that name, and RefusedError if it cannot be deleted.
    """
    expected = {"uid": action.uid} | ({"resourceVersion": version} if version else {})
    body = {"propagationPolicy": "Background", "preconditions": expected}
    try:
        return await client.delete(f"{paths.jobs(namespace)}/{action.name}", body)
    except ApiError as error:
        refusal = to_refusal("delete", "Job", action.name, error)
        # An admission webhook may answer with the codes of a Job that is gone or has changed.
        if error.status not in {NOT_FOUND, CONFLICT} or refusal.is_denied:
            raise RefusedError(refusal, error) from error
        if error.status == CONFLICT and version:
            raise OutdatedError(action.name) from error
        return {}


async def write_status(
    client: Client, finetune: FineTune, status: FineTuneStatus
) -> JsonObject | None:
    """Replace the whole status if it differs, and return the object as it is then.

    None: nothing to write, or the FineTune is gone.

    A merge patch would keep fields that are removed, so this is a JSON patch. It tests the UID, for
    a FineTune that was created again under the same name, and the resource version, because a slow
    operator must not undo what another one has written in the meantime.
    """
    new = status.to_dict()
    if new == finetune.status.to_dict():
        return None
    meta = finetune.metadata
    patch: list[JsonObject] = [
        {"op": "test", "path": "/metadata/uid", "value": meta.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version},
        {"op": "add", "path": "/status", "value": new},
    ]
    try:
        path = f"{paths.finetunes(meta.namespace)}/{meta.name}/status"
        return await client.json_patch(path, patch)
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise


def find_new_events(before: FineTuneStatus, after: FineTuneStatus) -> list[EventEntry]:
    """The Events that only the new status has, without those that stay in the status."""
    known = {_identity(entry) for entry in before.events}
    return [
        entry
        for entry in after.events
        if _identity(entry) not in known and entry.reason not in QUIET_REASONS
    ]


def _identity(entry: EventEntry) -> tuple[str, str, int | None, str | None]:
    return entry.at, entry.reason, entry.attempt, entry.key


async def post_event(client: Client, event: JsonObject) -> None:
    """Post a Kubernetes Event once. An ApiError is only logged."""
    try:
        await client.create(paths.core(event["metadata"]["namespace"], "events"), event)
    except ApiError as error:
        if error.status != CONFLICT:
            logger.warning("an Event of %s was refused: %s", event["involvedObject"]["name"], error)
