"""Adoption: the model of a former FineTune with the same name, in place of a training.

The prepare pod, which has the credentials of the namespace, has compared and verified everything.
Its word decides only which UID the former FineTune had: the addresses are computed here. An
adoption needs no GPU, so that neither a suspension nor a queue delays it.
"""

import re
from dataclasses import dataclass

from finetune_api.finetune_status import AdoptedFrom, Resolved
from finetune_api.layout import RunLayout
from finetune_api.model_names import FINE_TUNED_MARK, resource_name, slug
from finetune_api.outcome import Adopted, Trained
from finetune_operator import messages
from finetune_operator.build.model_resource import build_model
from finetune_operator.core.attempts.results import find_adopted
from finetune_operator.core.attempts.success import complete_progress
from finetune_operator.core.observed import Observed
from finetune_operator.core.plan import Create, Plan
from finetune_operator.core.status_builder import StatusBuilder

UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DIGEST = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True)
class Adoption:
    """The UID of the former FineTune, and what it trained, at its addresses."""

    uid: str
    trained: Trained


def find_adoption(observed: Observed, resolved: Resolved | None) -> Adoption | None:
    """The model that the FineTune adopts; None if it trains.

    It trains if an attempt has begun, if the files are being deleted, and if a Model of others has
    the name of the model.
    """
    finetune, job = observed.finetune, observed.prepare_job
    if resolved is None or job is None or finetune.spec.reuse == "Never" or finetune.spec.dry_run:
        return None
    if finetune.status.attempts or observed.attempts or find_name_in_use(observed):
        return None
    word = find_adopted(job)
    if word is None or not _is_plausible(word, observed, resolved):
        return None
    meta = finetune.metadata
    layout = RunLayout.of(resolved.output, meta.namespace, meta.name, word.uid)
    if str(layout.model) in observed.going_models:
        return None
    return Adoption(word.uid, word.trained_at(str(layout.model), [str(layout.results)]))


def find_name_in_use(observed: Observed) -> str | None:
    """The Model of others that has the name of the model to adopt.

    Before the first attempt, no other Model is created.
    """
    begun = observed.finetune.status.attempts or observed.attempts
    kinds = {item.kind for item in observed.foreign}
    return observed.foreign[0].name if kinds == {"Model"} and not begun else None


def adopt(observed: Observed, builder: StatusBuilder, adoption: Adoption) -> Plan:
    """Succeed with the Model, which others may use, too."""
    finetune, resolved = observed.finetune, builder.status.resolved
    trained, uid = adoption.trained, adoption.uid
    assert resolved is not None and resolved.hyperparameters is not None
    name, uri = trained.fine_tuned_model, trained.model_uri
    builder.record_event(messages.adopted(name, uid, uri))
    builder.record_event(messages.SUCCEEDED)
    complete_progress(builder, trained)
    builder.set(
        fine_tuned_model=name,
        model_uri=uri,
        result_files=trained.result_files,
        trained_tokens=trained.trained_tokens,
        adopted_from=AdoptedFrom(uid=uid),
    )
    builder.succeed(messages.model_adopted(name, uid, uri))
    return Plan(builder.finish(), (Create(build_model(finetune, resolved, trained, uid)),))


def _is_plausible(word: Adopted, observed: Observed, resolved: Resolved) -> bool:
    """Whether the word has the form of ours: any program in the pod may have written it."""
    family = f"{resolved.base.root}{FINE_TUNED_MARK}{slug(resolved.organization)}"
    return (
        UID.fullmatch(word.uid) is not None
        and word.uid[:8] != observed.finetune.metadata.uid[:8]
        and DIGEST.fullmatch(word.model_manifest_sha256) is not None
        and NAME.fullmatch(word.fine_tuned_model) is not None
        and word.fine_tuned_model.startswith(family)
        and bool(resource_name(word.fine_tuned_model))
    )
