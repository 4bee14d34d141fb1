"""`finetune logs`: the log of a pod, found by the name of its FineTune."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

import click

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.errors import ApiError, UnreachableError
from finetune_cli.cluster.objects import read_finetune
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, name_argument
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.output import show_document
from finetune_cli.terminal.program import program_name

INDEX = "batch.kubernetes.io/job-completion-index"
POLL_SECONDS = 2.0  # while waiting for a pod
SILENCE_SECONDS = 3600.0  # a training may print nothing for a long time


@click.command()
@name_argument
@click.option(
    "--node",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Index of the training pod.",
)
@click.option(
    "--attempt", type=click.IntRange(min=1), help="Number of the attempt.  [default: the last]"
)
@click.option("--prepare", is_flag=True, help="Print the log of the Job that checks the data.")
@click.option(
    "-f",
    "--follow",
    "follows",
    is_flag=True,
    help="Wait for the pod, and print new lines as they appear.",
)
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="LINES", help="Print only the last lines."
)
@cluster_flags
def command(
    *,
    name: str,
    node: int,
    attempt: int | None,
    prepare: bool,
    follows: bool,
    tail: int | None,
    target: ClusterTarget,
) -> None:
    """Print the logs of a fine-tune's pods, or the last lines in its status if the pods are gone.

    Pod 0 logs training losses. Other pods log only their own status.
    """
    cluster = connect(target)
    selector = PodSelector(node=node, attempt=attempt, prepare=prepare)
    pod = _find(cluster, name, selector, target, waits=follows, tail=tail)
    if pod is None:
        return
    query: dict[str, str | int | bool] = {"container": container_of(pod), "follow": follows}
    if tail is not None:
        query["tailLines"] = tail
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{quote(meta['namespace'])}/pods/{quote(meta['name'])}/log"
    Screen().note(f"pod {meta['name']}")
    try:
        with cluster.lines(path, query, SILENCE_SECONDS) as lines:
            for text in _text(lines):
                show_document(text)
    except ApiError as error:
        if error.status != HTTPStatus.BAD_REQUEST:
            raise
        raise CommandError(
            f"pod {meta['name']} has no log yet: {error.message}",
            f"`{program_name()} logs -f {name}{target.flags}` waits for it",
        ) from error
    except UnreachableError as error:
        raise CommandError(
            f"the connection to the log was lost: {error.reason}",
            "run the command again; --tail limits the repeated lines",
        ) from error


@dataclass(frozen=True)
class PodSelector:
    """Selects a pod. attempt: None selects the last one."""

    node: int = 0
    attempt: int | None = None
    prepare: bool = False


def _find(
    cluster: Cluster,
    name: str,
    selector: PodSelector,
    target: ClusterTarget,
    *,
    waits: bool,
    tail: int | None,
) -> JsonObject | None:
    """The pod; None if the stored lines were printed. waits: until the pod has started."""
    is_announced = False
    while True:
        finetune = read_finetune(cluster.finetunes.get(name))
        is_early = not any(attempt.ended_at for attempt in finetune.status.attempts)
        pod = select_pod(_pods(cluster, finetune), selector, is_early=is_early)
        has_started = pod is not None and (pod.get("status") or {}).get("phase") != "Pending"
        if has_started or (pod is not None and not waits):
            return pod
        if not waits or is_finished(finetune, selector):
            title, lines = stored_log_lines(finetune, selector, target.flags)
            Screen().note(title)
            for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
                show_document(sanitize(line))
            return None
        if not is_announced:
            Screen().note(
                f"waiting for the pod: {finetune.status.message or 'it does not exist yet'}"
            )
            is_announced = True
        time.sleep(POLL_SECONDS)


def container_of(pod: JsonObject) -> str:
    """The container with the log that matters: the one that failed before the main one, if any.

    It may be one that an admission webhook injected. A native sidecar ends after the main one.
    """
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        if container.get("name") == names.CONTAINER and state.keys() & {"running", "terminated"}:
            return names.CONTAINER
    for container in status.get("initContainerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return str(container["name"])
    return names.CONTAINER


def select_pod(
    pods: Sequence[JsonObject], selector: PodSelector, *, is_early: bool
) -> JsonObject | None:
    """The newest selected pod, of the last attempt or of the prepare Job.

    is_early: no attempt has ended yet. Without training pods, the prepare pod is then the default.
    """
    kinds = {
        kind: [pod for pod in pods if _label(pod, names.LABEL_COMPONENT) == kind]
        for kind in (names.COMPONENT_PREPARE, names.COMPONENT_TRAIN)
    }
    workers = [pod for pod in kinds[names.COMPONENT_TRAIN] if _index(pod) == selector.node]
    if selector.attempt is not None:
        workers = [pod for pod in workers if _attempt(pod) == selector.attempt]
    is_preparing = is_early and not kinds[names.COMPONENT_TRAIN] and selector == PodSelector()
    found = kinds[names.COMPONENT_PREPARE] if selector.prepare or is_preparing else workers
    return max(found, key=lambda pod: (_attempt(pod), _created(pod)), default=None)


def _pods(cluster: Cluster, finetune: FineTune) -> list[JsonObject]:
    meta = finetune.metadata
    answer = cluster.request(
        "GET",
        f"/api/v1/namespaces/{quote(meta.namespace)}/pods",
        query={"labelSelector": f"{names.LABEL_UID}={meta.uid}"},
    )
    items: list[JsonObject] = answer["items"]
    return items


def is_finished(finetune: FineTune, selector: PodSelector) -> bool:
    """Whether the selected pod can no longer appear."""
    ended = {attempt.number for attempt in finetune.status.attempts if attempt.ended_at}
    return finetune.status.state in names.TERMINAL_STATES or selector.attempt in ended


def stored_log_lines(
    finetune: FineTune, selector: PodSelector, flags: str
) -> tuple[str, list[str]]:
    """A title, and the last log lines in the status, for pods that no longer exist.

    Raises CommandError if there are no lines. flags: the cluster flags for the hint.
    """
    status, name = finetune.status, finetune.metadata.name
    whole = f"fine-tune {name} ({status.state or 'pending'})"
    attempts = {attempt.number: attempt for attempt in status.attempts}
    last = max(attempts, default=None)
    number = selector.attempt or last
    attempt = attempts.get(number) if number else None
    error = status.error if number == last else None  # it describes the last attempt
    lines = (attempt and attempt.log) or (error and error.log)
    if selector.prepare and attempts:
        lines = None  # the lines are from a training pod
    if lines:
        gone = f"The pods of attempt {number}" if attempt else "The pods"
        rank = attempt.rank if attempt and attempt.log else None
        of_whom = "" if rank is None else f" of rank {rank}"
        return f"{gone} no longer exist; these are the last lines{of_whom} in the status", lines
    if selector.attempt is not None and attempt is None:
        message = f"{whole} has no attempt {number}" + (f"; the last one is {last}" if last else "")
    elif attempt and attempt.ended_at and not selector.prepare:
        message = f"attempt {number} of {whole} has no pod, and no log lines in the status"
    else:
        message = f"{whole} has no such pod"
    raise CommandError(message, f"`{program_name()} get {name}{flags}` shows its events")


def _text(lines: Iterator[bytes]) -> Iterator[str]:
    """Decode the lines, which are untrusted. A terminal gets only the last state of a bar."""
    is_terminal = sys.stdout.isatty()
    for line in lines:
        states = line.decode("utf-8", "replace").rstrip("\r").split("\r")
        yield from states[-1:] if is_terminal else states


def _label(pod: JsonObject, key: str) -> str:
    return str(pod["metadata"].get("labels", {}).get(key, ""))


def _index(pod: JsonObject) -> int:
    return _integer(_label(pod, INDEX))


def _attempt(pod: JsonObject) -> int:
    return _integer(_label(pod, names.LABEL_ATTEMPT))


def _integer(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _created(pod: JsonObject) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))
