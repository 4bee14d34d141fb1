"""The containers of a pod, found by name: admission webhooks inject others anywhere."""

from typing import NamedTuple

from finetune_api import names
from finetune_api.wire import JsonObject

# init containers of ours, in their order
BEFORE_MAIN = (names.CONTAINER_BASE_CHECK, names.CONTAINER_FETCH)
OURS = frozenset({*BEFORE_MAIN, names.CONTAINER})
# A container that has not started yet, without a cause.
QUIET_WAITS = frozenset({"ContainerCreating", "PodInitializing"})
CRASH_LOOP = "CrashLoopBackOff"  # only of a container with a restart policy of its own
CRASH_CHARACTERS = 300  # of the last message of such a container


class Wait(NamedTuple):
    """A container that does not start, and why. reason and message: those of the kubelet."""

    container: str
    reason: str
    message: str | None


class InjectedFailure(NamedTuple):
    """The end of a container that is not ours, and without which the pod cannot succeed."""

    container: str
    exit_code: int
    reason: str | None
    message: str | None


def current_container(spec: JsonObject, status: JsonObject) -> tuple[str, JsonObject, JsonObject]:
    """The name, the status, and the spec of our container that the pod waits for or ended with.

    That is the main one, or a container of ours that must succeed before it.
    """
    for name in BEFORE_MAIN:
        found = named(name, status.get("initContainerStatuses", []))
        if found is not None and _exit_code(found) != 0:
            return name, found, named(name, spec.get("initContainers", [])) or {}
    known = [status.get("containerStatuses", []), spec.get("containers", [])]
    main = [named(names.CONTAINER, items) or _unnamed(items) for items in known]
    return names.CONTAINER, main[0], main[1]


def find_wait(status: JsonObject) -> Wait | None:
    """The first container with a cause, in the order in which the kubelet starts them.

    A pod waits for each of its init containers, and is ready only with all of the others.
    """
    statuses = [*status.get("initContainerStatuses", []), *_main_first(status)]
    waits = [_wait_of(item) for item in statuses]
    return next((wait for wait in waits if wait and wait.reason not in QUIET_WAITS), None)


def find_running_init(spec: JsonObject, status: JsonObject) -> str | None:
    """The injected init container that runs, and that the other containers wait for."""
    sidecars = _restarting(spec)
    for item in status.get("initContainerStatuses", []):
        name = item.get("name")
        if "running" in item.get("state", {}) and name not in OURS | sidecars:
            return str(name)
    return None


def find_injected_failure(spec: JsonObject, status: JsonObject) -> InjectedFailure | None:
    """The injected container that ended the pod, if none of ours failed.

    A container that restarts, such as a native sidecar, does not end its pod.
    """
    if status.get("phase") != "Failed":
        return None
    inits, others = status.get("initContainerStatuses", []), status.get("containerStatuses", [])
    ours = [_exit_code(item) for item in (*inits, *others) if item.get("name", "main") in OURS]
    if any(ours):
        return None
    sidecars = _restarting(spec)
    for item in (*inits, *others):
        code, name = _exit_code(item), item.get("name", names.CONTAINER)
        if code and name not in OURS | sidecars:
            ended = item["state"]["terminated"]
            return InjectedFailure(name, code, ended.get("reason"), ended.get("message"))
    return None


def named(name: str, items: list[JsonObject]) -> JsonObject | None:
    return next((item for item in items if item.get("name") == name), None)


def _restarting(spec: JsonObject) -> set[str]:
    """The native sidecars: init containers that run next to the others."""
    return {
        str(item.get("name"))
        for item in spec.get("initContainers", [])
        if item.get("restartPolicy") == "Always"
    }


def _unnamed(items: list[JsonObject]) -> JsonObject:
    return next((item for item in items if "name" not in item), {})


def _main_first(status: JsonObject) -> list[JsonObject]:
    items: list[JsonObject] = status.get("containerStatuses", [])
    return sorted(items, key=lambda item: item.get("name", names.CONTAINER) != names.CONTAINER)


def _wait_of(item: JsonObject) -> Wait | None:
    waiting = item.get("state", {}).get("waiting") or {}
    name, reason = item.get("name", names.CONTAINER), waiting.get("reason")
    if not reason:
        return None
    if reason == CRASH_LOOP:
        return Wait(name, reason, _last_end(item))
    return Wait(name, reason, waiting.get("message"))


def _last_end(item: JsonObject) -> str | None:
    """The last end: the kubelet's own message contains the growing back-off."""
    ended = item.get("lastState", {}).get("terminated")
    if not ended:
        return None
    message = (ended.get("message") or "").strip()[-CRASH_CHARACTERS:]
    return f"exit code {ended.get('exitCode')}" + (f": {message}" if message else "")


def _exit_code(item: JsonObject) -> int | None:
    ended = item.get("state", {}).get("terminated") or {}
    code: int | None = ended.get("exitCode")
    return code
