"""The Model reconciler: observe -> decide -> act, for Models whose files are deleted with them."""

from datetime import UTC, datetime

from finetune_api.model import Model
from finetune_api.wire import JsonObject
from finetune_operator.core.deletion import ModelPlan, decide_model, explained
from finetune_operator.core.key import Key
from finetune_operator.core.refusals import explain_refusal
from finetune_operator.kube import paths
from finetune_operator.kube.act import RefusedError, create_ours, delete_job
from finetune_operator.kube.client import Client
from finetune_operator.kube.observe_model import observe_model
from finetune_operator.settings import Settings


async def reconcile_model(client: Client, settings: Settings, key: Key) -> float | None:
    """Return the seconds until the next reconcile; None: wait for a trigger, or it is gone."""
    observed = await observe_model(client, key)
    if observed is None:
        return None
    model, job = observed
    now = datetime.now(UTC)
    plan = decide_model(model, job, settings, now)
    if plan.create is not None:
        try:
            await create_ours(client, key.namespace, model.metadata.uid, plan.create)
        except RefusedError as error:
            if not error.refusal.is_transient:
                message = explain_refusal(error.refusal)
                await _write(client, model, explained(model, plan, message, now))
            raise
    await _write(client, model, plan)
    if plan.delete is not None:
        await delete_job(client, key.namespace, plan.delete)
    return plan.requeue_after


async def _write(client: Client, model: Model, plan: ModelPlan) -> None:
    """Write the status before the finalizers: without a finalizer the Model may be gone."""
    path = f"{paths.models(model.metadata.namespace)}/{model.metadata.name}"
    same: list[JsonObject] = [{"op": "test", "path": "/metadata/uid", "value": model.metadata.uid}]
    if plan.status != model.status:
        value = plan.status.to_dict()
        patch = {"op": "add", "path": "/status", "value": value}
        await client.json_patch(f"{path}/status", [*same, patch])
    elif plan.finalizers != model.metadata.finalizers:
        version = model.metadata.resource_version
        await client.json_patch(
            path,
            [
                *same,
                {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                {"op": "add", "path": "/metadata/finalizers", "value": plan.finalizers},
            ],
        )
