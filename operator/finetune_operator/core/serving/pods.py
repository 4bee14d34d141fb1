"""The pods of a served Model: raw objects in, frozen values out, and why none of them is ready."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from finetune_api import names
from finetune_api.finetune_status import ErrorInfo
from finetune_api.outcome import Outcome
from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.core.containers import current_container
from finetune_operator.core.observed import ENDED_PHASES, Pod
from finetune_operator.core.pending import explain_pods
from finetune_operator.messages import StatusMessage
from finetune_operator.messages.text import MESSAGE_CHARACTERS

LOG_LINES, LOG_CHARACTERS = 20, 400
TAIL_CHARACTERS = 300
CRASHES = 2  # ends in a row, after which a server is reported as failed
OUT_OF_MEMORY = "OOMKilled"
# Causes that a short wait does not explain. Others, such as the download of an image, take a while.
STARTING = frozenset({names.Reason.STARTING, names.ServingReason.LOADING})


@dataclass(frozen=True)
class ServingPod:
    """One pod of a Deployment, and the last end of the container that it waits for."""

    pod: Pod
    restarts: int = 0
    exit_code: int | None = None  # of the last end; None: it has not ended yet
    exit_reason: str | None = None
    message: str | None = None  # its termination message, or the end of its log

    @property
    def is_ready(self) -> bool:
        return self.pod.is_ready and not self.pod.is_going

    @property
    def is_wanted(self) -> bool:
        """Whether the Deployment counts it."""
        return not self.pod.is_going and self.pod.phase not in ENDED_PHASES

    @classmethod
    def parse(cls, raw: JsonObject) -> Self:
        status = raw.get("status", {})
        _, container, _ = current_container(raw.get("spec", {}), status)
        states = [container.get("state", {}), container.get("lastState", {})]
        ends = [state["terminated"] for state in states if state.get("terminated")]
        ended: JsonObject = next((end for end in ends if end.get("exitCode")), {})
        conditions = {item["type"]: item["status"] for item in status.get("conditions", [])}
        pod = Pod.parse(raw)
        is_ready = pod.is_ready and conditions.get("Ready") == "True"
        return cls(
            pod=replace(pod, is_ready=is_ready),
            restarts=container.get("restartCount", 0),
            exit_code=ended.get("exitCode"),
            exit_reason=ended.get("reason"),
            message=ended.get("message"),
        )


@dataclass(frozen=True)
class Cause:
    """Why no pod is ready.

    is_certain: it is a failure at once. may_last: it is one if it lasts; a single crash is not.
    """

    message: StatusMessage
    is_certain: bool = False
    may_last: bool = False
    log: tuple[str, ...] = ()

    @property
    def is_failure(self) -> bool:
        """Whether it is more than a start that takes its time."""
        return self.message.reason not in STARTING


def find_cause(pods: Sequence[ServingPod], wanted: int, refused: str | None) -> Cause:
    """Why fewer than `wanted` pods are ready. refused: why further ones cannot be created."""
    waiting = [pod for pod in pods if pod.is_wanted and not pod.is_ready]
    crashed = [pod for pod in waiting if pod.exit_code]
    if crashed:
        return _explain_crash(max(crashed, key=lambda pod: pod.restarts))
    missing = refused if len([pod for pod in pods if pod.is_wanted]) < wanted else None
    found = explain_pods([pod.pod for pod in waiting], wanted, missing)
    if found.reason != names.Reason.STARTING:
        return Cause(messages.waits_in_vain(found.reason, found.message), may_last=True)
    return Cause(messages.pods_load(wanted))


def _explain_crash(pod: ServingPod) -> Cause:
    code, lines = pod.exit_code or 0, _lines(pod.message)
    tail = lines[-1][-TAIL_CHARACTERS:] if lines else ""
    often = pod.restarts >= CRASHES
    if pod.exit_reason == OUT_OF_MEMORY:
        return Cause(messages.server_out_of_memory(pod.pod.memory_limit), often, log=tuple(lines))
    if pod.pod.container != names.CONTAINER_FETCH:
        return Cause(messages.server_crashed(code, tail), often, log=tuple(lines))
    failure = _reported(pod.message)
    if failure is None:
        return Cause(messages.download_crashed(code, tail), often, log=tuple(lines))
    return Cause(messages.download_failed(failure), often or code == names.EXIT_USER)


def _reported(message: str | None) -> ErrorInfo | None:
    """The failure that the download reported. Its words come from a pod."""
    found = Outcome.parse(message)
    failure = found.failure if found else None
    if failure is None:
        return None
    known = names.END_REASONS | {names.Reason.INTERNAL}
    code = failure.code if failure.code in known else names.Reason.INTERNAL
    return ErrorInfo(
        code=code,
        message=sanitize(failure.message)[:MESSAGE_CHARACTERS],
        hint=sanitize(failure.hint)[:1000] if failure.hint else None,
    )


def _lines(message: str | None) -> list[str]:
    lines = [sanitize(line.rstrip()) for line in (message or "").splitlines() if line.strip()]
    return [line[:LOG_CHARACTERS] for line in lines[-LOG_LINES:]]
