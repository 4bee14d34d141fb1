"""The results of Jobs: which count, and which are lost.

A result is the termination message of a pod that ended well. It counts only with the addresses of
the FineTune's own layout: any program in the pod may have written it.
"""

from datetime import datetime

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import ErrorInfo, Resolved
from finetune_api.layout import RunLayout
from finetune_api.model_names import FINE_TUNED_MARK
from finetune_api.outcome import Adopted, Prepared, Trained
from finetune_operator import messages
from finetune_operator.core.observed import Job, Pod
from finetune_operator.core.plan import left_of

CUT = "…"  # ends an address that an older image has shortened
LATE_SECONDS = 10.0  # a list of pods may be older than the list of Jobs with the condition Complete


def find_trained(job: Job, finetune: FineTune, resolved: Resolved | None) -> Trained | None:
    """The published model in the word of rank 0, or of the lookup pod, with our addresses."""
    if resolved is None:
        return None
    meta = finetune.metadata
    layout = RunLayout.of(resolved.output, meta.namespace, meta.name, meta.uid)
    model, results = str(layout.model), str(layout.results)
    family = resolved.base.root + FINE_TUNED_MARK
    for pod in _successes(job):
        found = pod.outcome.trained if pod.outcome else None
        if found is None or not found.fine_tuned_model.startswith(family):
            continue
        if not _is_address(found.model_uri, model):
            continue
        if all(_is_address(uri, results) for uri in found.result_files):
            files = [results for _ in found.result_files]
            return found.replace(model_uri=model, result_files=files)
    return None


def find_prepared(job: Job) -> Prepared | None:
    """The result of the prepare Job."""
    found = (pod.outcome.prepared for pod in _successes(job) if pod.outcome)
    return next((prepared for prepared in found if prepared is not None), None)


def find_adopted(job: Job) -> Adopted | None:
    """The model of a former FineTune that the prepare Job has found."""
    words = [pod.outcome for pod in _successes(job)]
    return next((word.adopted for word in words if word and word.prepared and word.adopted), None)


def find_loss(job: Job, what: str, now: datetime) -> ErrorInfo | None:
    """Why the result of a Job that succeeded is lost; None if the Job may still give it.

    what: the Job in words. Call it only for a Job without a result that counts.
    """
    ended = _successes(job)
    if ended:
        words = [pod.outcome for pod in ended if pod.outcome is not None]
        is_foreign = any(word.trained for word in words)
        cause = messages.WORD_FOREIGN if is_foreign else messages.WORD_UNREADABLE
        return messages.result_lost(what, cause)
    if job.has_completed and not awaits_pods(job, now):
        return messages.result_lost(what, messages.PODS_REMOVED)
    return None


def awaits_pods(job: Job, now: datetime) -> bool:
    """Whether the Job has just succeeded, and its pods may be seen later."""
    if not job.has_completed or _successes(job):
        return False
    return left_of(LATE_SECONDS, job.completed_at, now) > 0


def _successes(job: Job) -> list[Pod]:
    """The pods of index 0 that ended well, the newest first."""
    return [pod for pod in reversed(job.pods) if pod.index == 0 and pod.exit_code == 0]


def _is_address(given: str, ours: str) -> bool:
    return given == ours or (given.endswith(CUT) and ours.startswith(given[: -len(CUT)]))
