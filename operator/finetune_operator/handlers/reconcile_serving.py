"""The reconciler of served Models: observe -> decide -> act -> one status write -> one Event."""

import logging
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from finetune_api.model import Model
from finetune_operator import messages
from finetune_operator.build.kubernetes_event import build_model_event
from finetune_operator.core.key import Key
from finetune_operator.core.plan import stamp
from finetune_operator.core.refusals import explain_refusal
from finetune_operator.core.serving.decide import (
    ObservedServing,
    ServingPlan,
    decide_serving,
    event_of,
    is_warning,
)
from finetune_operator.kube.act import ForeignObjectError, RefusedError, post_event
from finetune_operator.kube.act_serving import act_serving
from finetune_operator.kube.client import Client
from finetune_operator.kube.observe_model import UnreadableModelError, read_model
from finetune_operator.kube.observe_serving import observe_serving
from finetune_operator.kube.write_model import write_model_status
from finetune_operator.messages import StatusMessage
from finetune_operator.settings import Settings
from finetune_operator.telemetry import serving_metrics

HICCUPS = 3  # failures without a cause of their own, before they are reported
RETRY_SECONDS = 30.0

logger = logging.getLogger(__name__)


class ServingReconciler:
    """Reconciles the servers of Models with spec.serve."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._hiccups: Counter[Key] = Counter()  # actions that failed in a row

    async def reconcile(self, key: Key) -> float | None:
        """Return the seconds until the next reconcile; None: wait for a trigger, or it is gone."""
        try:
            model = await read_model(self._client, key)
        except UnreadableModelError as error:
            logger.warning("%s: it is not served", error)
            model = None
        if model is None:
            serving_metrics.forget(key)
            return None
        reads_policy = self._settings.pod_network is not None
        observed = await observe_serving(self._client, model, reads_policy=reads_policy)
        plan = decide_serving(observed, self._settings, datetime.now(UTC))
        plan = await self._act(key, observed, plan)
        await self._write(key, model, plan)
        return plan.requeue_after

    async def _act(self, key: Key, observed: ObservedServing, plan: ServingPlan) -> ServingPlan:
        """Carry out the plan. Return it, or the one that explains what the API server refuses."""
        try:
            for action in plan.actions:
                await act_serving(self._client, observed.model.metadata, action)
        except ForeignObjectError as error:
            taken = messages.serving_name_taken(str(error.found))
            return self._refused(observed, plan, taken)
        except RefusedError as error:
            self._hiccups[key] += 1
            if error.refusal.is_transient and self._hiccups[key] < HICCUPS:
                raise
            logger.warning("%s: %s", key, error)
            return self._refused(observed, plan, explain_refusal(error.refusal))
        self._hiccups.pop(key, None)
        return plan

    def _refused(
        self, observed: ObservedServing, plan: ServingPlan, cause: StatusMessage
    ) -> ServingPlan:
        if plan.status is None:  # a deletion
            return replace(plan, status=observed.model.status.serving, requeue_after=RETRY_SECONDS)
        found = replace(observed, refused=cause)
        return decide_serving(found, self._settings, datetime.now(UTC))

    async def _write(self, key: Key, model: Model, plan: ServingPlan) -> None:
        before, after = model.status.serving, plan.status
        if after != before:
            status = model.status.replace(serving=after)
            await write_model_status(self._client, model, status)
        if after is None:
            serving_metrics.forget(key)
        else:
            serving_metrics.observe(key, before, after)
        message = event_of(before, after)
        if message is None:
            return
        logger.info("%s is %s: %s", key, after.state if after else "not served", message.message)
        at = after.since if after else stamp(datetime.now(UTC))
        event = build_model_event(
            *(model.metadata, message.reason, message.message, at), is_warning=is_warning(after)
        )
        await post_event(self._client, event)
