"""The Model reconciler: observe -> decide -> act, for Models whose files are deleted with them."""

import logging
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from finetune_api import names
from finetune_api.model import Model
from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.core.deletion import (
    ModelPlan,
    ObservedModel,
    decide_model,
    find_strays,
    without_ours,
)
from finetune_operator.core.key import Key
from finetune_operator.core.plan import DeleteJob
from finetune_operator.core.refusals import Refusal, explain_refusal, is_terminating
from finetune_operator.kube.act import ForeignObjectError, RefusedError, create_ours, delete_job
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.observe_model import (
    UnreadableModelError,
    observe_model,
    read_jobs,
    read_model,
)
from finetune_operator.kube.rare_reads import RareReads
from finetune_operator.kube.write_model import write_finalizers, write_model_status
from finetune_operator.messages import StatusMessage
from finetune_operator.settings import Settings

HICCUPS = 3  # failures without a cause of their own, before they are reported

logger = logging.getLogger(__name__)


class ModelReconciler:
    """Reconciles Models, and remembers which FineTune each deletion waits for."""

    def __init__(self, client: Client, settings: Settings, kueue: Kueue, rare: RareReads) -> None:
        self._client = client
        self._kueue = kueue
        self._rare = rare
        self._settings = settings
        self._users: dict[Key, Key] = {}  # Model -> the FineTune that needs its files
        self._hiccups: Counter[Key] = Counter()  # Model -> creations that failed in a row

    def find_waiting(self, finetune: Key) -> list[Key]:
        """The Models whose deletion waits for the end of a FineTune."""
        return [model for model, user in self._users.items() if user == finetune]

    async def reconcile(self, key: Key) -> float | None:
        """Return the seconds until the next reconcile; None: wait for a trigger, or it is gone."""
        client = self._client
        try:
            model = await read_model(client, key)
        except UnreadableModelError as error:
            await self._release_unreadable(error)
            return None
        jobs = await read_jobs(client, key)
        for stray in find_strays(model, jobs):
            await self._delete_stray(key.namespace, stray)
        user = self._users.pop(key, None)
        if model is None:
            return None
        observed = await observe_model(
            *(client, self._settings, self._kueue, model, jobs),
            rare=self._rare,
            former_user=user.name if user else None,
        )
        if observed.used_by is not None:
            self._users[key] = Key(key.namespace, observed.used_by)
        plan = decide_model(observed, self._settings, datetime.now(UTC))
        if plan.create is not None:
            plan = await self._create(key, observed, plan)
        await self._write(model, plan)
        if plan.delete is not None:
            await delete_job(client, key.namespace, plan.delete)
        return plan.requeue_after

    async def _delete_stray(self, namespace: str, stray: DeleteJob) -> None:
        """Delete a Job that no deletion needs. A refusal must not delay the Model of that name."""
        try:
            await delete_job(self._client, namespace, stray)
        except RefusedError as error:
            logger.warning("a deletion Job without a Model remains: %s", error)

    async def _release_unreadable(self, error: UnreadableModelError) -> None:
        """Which files belong to the Model is unknown: they stay, and nothing waits for them."""
        meta = error.metadata
        is_held = names.FINALIZER_MODEL in meta.finalizers
        logger.warning("%s%s", error, ": it is released, and its files stay" if is_held else "")
        if is_held and meta.deletion_timestamp is not None:
            await write_finalizers(self._client, meta, without_ours(meta))

    async def _create(self, key: Key, observed: ObservedModel, plan: ModelPlan) -> ModelPlan:
        """Create the Job. Return the plan, or another one if the API server refuses the Job."""
        assert plan.create is not None
        meta = observed.model.metadata
        try:
            await create_ours(self._client, meta.namespace, meta.uid, plan.create)
        except ForeignObjectError as error:
            message = messages.files_job_taken(str(error.found))
            refused = replace(observed, refused=StatusMessage(Reason.FOREIGN_OBJECT, message))
        except RefusedError as error:
            self._hiccups[key] += 1
            if error.refusal.is_transient and self._hiccups[key] < HICCUPS:
                raise
            refused = _refuse(observed, error.refusal)
        else:
            self._hiccups.pop(key, None)
            return plan
        return decide_model(refused, self._settings, datetime.now(UTC))

    async def _write(self, model: Model, plan: ModelPlan) -> None:
        """Write the status before the finalizers: without a finalizer the Model may be gone."""
        if plan.status != model.status:
            try:
                await write_model_status(self._client, model, plan.status)
                return
            except ApiError as error:
                if plan.kept is None or not error.status:
                    raise
                # A refused message must not keep the finalizer.
                logger.warning("the status of Model %s is refused: %s", model.spec.id, error)
        if plan.finalizers != model.metadata.finalizers:
            if plan.kept is not None:
                logger.warning("Model %s is released: %s", model.metadata.name, plan.kept)
            await write_finalizers(self._client, model.metadata, plan.finalizers)


def _refuse(observed: ObservedModel, refusal: Refusal) -> ObservedModel:
    if is_terminating(refusal.causes):
        return replace(observed, namespace_is_terminating=True)
    found = explain_refusal(refusal)
    message = messages.files_job_refused(found.message)
    return replace(observed, refused=StatusMessage(found.reason, message))
