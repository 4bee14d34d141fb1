"""The end of an attempt whose places another FineTune needs, and the wait for the next one."""

from collections.abc import Sequence

from finetune_api.finetune_status import Attempt, ErrorInfo
from finetune_operator import messages
from finetune_operator.core.attempts import gangs
from finetune_operator.core.attempts.backoff import LONGEST
from finetune_operator.core.attempts.gangs import DOUBLINGS, NO_RELEASE, Release, count_releases
from finetune_operator.core.attempts.records import end_attempt
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import Verdict
from finetune_operator.settings import Settings

SHORTEST_SECONDS = 1.0  # a wait that the whole seconds of the status can express


def find_release(
    observed: Observed, builder: StatusBuilder, settings: Settings, number: int
) -> Release:
    """Whether attempt `number`, which has not run, is released."""
    meta, releases = observed.finetune.metadata, count_releases(builder.status.attempts, number)
    created = meta.creation_timestamp
    own = gangs.gang_of(meta.namespace, meta.name, created, observed.jobs, releases)
    if own is None:
        return NO_RELEASE
    return gangs.find_release(own, observed.rivals, settings.gang_seconds, builder.now)


def end_released(
    observed: Observed, builder: StatusBuilder, settings: Settings, job: Job, release: Release
) -> tuple[ErrorInfo, float]:
    """End the attempt. Return the cause, and the seconds until the next one.

    Its Job is deleted once the status says so.
    """
    number, favored = job.attempt or 1, release.favored
    assert favored is not None
    held = sum(pod.node is not None for pod in job.pods)
    whose = favored.name if favored.namespace == observed.finetune.metadata.namespace else None
    error = messages.gang_released(held, job.wanted, whose)
    end_attempt(observed, builder, job, error.code, Verdict.of(error, is_counted=False))
    builder.record_event(messages.pods_released(number, error.message))
    releases = count_releases(builder.status.attempts, number)
    return error, max(SHORTEST_SECONDS, gangs.seconds_to_retry(releases, settings.gang_seconds))


def follows_release(attempts: Sequence[Attempt], number: int) -> bool:
    """Whether the attempt before `number` was released, so that its Job is not kept."""
    return count_releases(attempts, number) > 0


def longest_wait(settings: Settings, *, is_freed: bool) -> float:
    """The longest wait before an attempt. is_freed: the one before it was released."""
    if is_freed:
        return max(SHORTEST_SECONDS, gangs.seconds_to_retry(DOUBLINGS, settings.gang_seconds))
    return settings.restart_seconds * LONGEST
