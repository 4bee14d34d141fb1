"""`finetune logs`: what a pod of a FineTune prints, found by the FineTune's name."""

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
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.errors import ApiError, UnreachableError
from finetune_cli.cluster.objects import read_finetune
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, name_argument
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import printable
from finetune_cli.terminal.program import program_name

INDEX = "batch.kubernetes.io/job-completion-index"
POLL_SECONDS = 2.0  # while a pod is awaited
SILENCE_SECONDS = 3600.0  # a training may print nothing for long


@click.command()
@name_argument
@click.option(
    "--node", type=click.IntRange(min=0), default=0, show_default=True, help="Pod of the gang."
)
@click.option("--attempt", type=click.IntRange(min=1), help="[default: the last]")
@click.option("--prepare", is_flag=True, help="Of the Job that checks the data instead.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Wait for it, go on as it grows.")
@click.option("--tail", type=click.IntRange(min=0), metavar="LINES", help="Only the last ones.")
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
    """What the pods print; the last lines in the status where the pods are gone.

    Pod 0 tells the losses; the others tell of themselves.
    """
    cluster = connect(target)
    wanted = PodSelector(node=node, attempt=attempt, prepare=prepare)
    pod = _find(cluster, name, wanted, target, waits=follows, tail=tail)
    if pod is None:
        return
    query: dict[str, str | int | bool] = {"container": names.CONTAINER, "follow": follows}
    if tail is not None:
        query["tailLines"] = tail
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{quote(meta['namespace'])}/pods/{quote(meta['name'])}/log"
    Screen().note(f"pod {meta['name']}")
    try:
        with cluster.lines(path, query, SILENCE_SECONDS) as lines:
            for text in _text(lines):
                click.echo(text)
    except ApiError as error:
        if error.status != HTTPStatus.BAD_REQUEST:
            raise
        raise CommandError(
            f"pod {meta['name']} has printed nothing yet: {error.message}",
            f"`{program_name()} logs -f {name}{target.flags}` waits for it",
        ) from error
    except UnreachableError as error:
        raise CommandError(
            f"the log broke off: {error.reason}", "the same command with --tail goes on"
        ) from error


@dataclass(frozen=True)
class PodSelector:
    """Which pod is meant; attempt None: the last."""

    node: int = 0
    attempt: int | None = None
    prepare: bool = False


def _find(
    cluster: Cluster,
    name: str,
    wanted: PodSelector,
    target: ClusterTarget,
    *,
    waits: bool,
    tail: int | None,
) -> JsonObject | None:
    """The pod; None after its last words were shown. waits: until it is there and has begun."""
    is_told = False
    while True:
        finetune = read_finetune(cluster.finetunes.get(name))
        is_early = not any(attempt.ended_at for attempt in finetune.status.attempts)
        pod = choose(_pods(cluster, finetune), wanted, is_early=is_early)
        has_begun = pod is not None and (pod.get("status") or {}).get("phase") != "Pending"
        if has_begun or (pod is not None and not waits):
            return pod
        if not waits or has_ended(finetune, wanted):
            said, lines = stored_log_lines(finetune, wanted, target.flags)
            Screen().note(said)
            for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
                click.echo(printable(line))
            return None
        if not is_told:
            Screen().note(f"waiting for the pod: {finetune.status.message or 'there is none yet'}")
            is_told = True
        time.sleep(POLL_SECONDS)


def choose(pods: Sequence[JsonObject], wanted: PodSelector, *, is_early: bool) -> JsonObject | None:
    """The newest pod that is meant: of the last attempt, or of the prepare Job.

    is_early: no attempt has ended yet. Then the prepare pod speaks for a gang that is not there.
    """
    kinds = {
        kind: [pod for pod in pods if _label(pod, names.LABEL_COMPONENT) == kind]
        for kind in (names.COMPONENT_PREPARE, names.COMPONENT_TRAIN)
    }
    gang = [pod for pod in kinds[names.COMPONENT_TRAIN] if _index(pod) == wanted.node]
    if wanted.attempt is not None:
        gang = [pod for pod in gang if _attempt(pod) == wanted.attempt]
    speaks = is_early and not kinds[names.COMPONENT_TRAIN] and wanted == PodSelector()
    found = kinds[names.COMPONENT_PREPARE] if wanted.prepare or speaks else gang
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


def has_ended(finetune: FineTune, wanted: PodSelector) -> bool:
    """Whether the pod that is meant will not come any more."""
    ended = {attempt.number for attempt in finetune.status.attempts if attempt.ended_at}
    return finetune.status.state in names.TERMINAL_STATES or wanted.attempt in ended


def stored_log_lines(finetune: FineTune, wanted: PodSelector, flags: str) -> tuple[str, list[str]]:
    """Where the pods are gone: a sentence, and the last lines that the status kept of them.

    Raises CommandError where it kept none. flags: of the cluster, for the command in the hint.
    """
    status, name = finetune.status, finetune.metadata.name
    whole = f"fine-tune {name} ({status.state or 'pending'})"
    attempts = {attempt.number: attempt for attempt in status.attempts}
    last = max(attempts, default=None)
    number = wanted.attempt or last
    attempt = attempts.get(number) if number else None
    of_the_end = status.error if number == last else None  # the error tells of the last attempt
    kept = (attempt and attempt.log) or (of_the_end and of_the_end.log)
    if wanted.prepare and attempts:
        kept = None  # the lines are a training's
    if kept:
        gone = f"the pods of attempt {number}" if attempt else "the pods"
        rank = attempt.rank if attempt and attempt.log else None
        of_whom = "" if rank is None else f" of rank {rank}"
        return f"{gone} are gone: these are the last lines{of_whom} kept in the status", kept
    if wanted.attempt is not None and attempt is None:
        why = f"{whole} has no attempt {number}" + (f": the last is {last}" if last else "")
    elif attempt and attempt.ended_at and not wanted.prepare:
        why = f"attempt {number} of {whole} has no pod, and the status kept no lines of it"
    else:
        why = f"{whole} has no such pod"
    raise CommandError(why, f"`{program_name()} get {name}{flags}` tells its story")


def _text(lines: Iterator[bytes]) -> Iterator[str]:
    """A pod may print anything: a terminal gets no control characters, a pipe what was printed."""
    is_terminal = sys.stdout.isatty()
    for line in lines:
        text = line.decode("utf-8", "replace")
        yield printable(text.rpartition("\r")[2]) if is_terminal else text


def _label(pod: JsonObject, key: str) -> str:
    return str(pod["metadata"].get("labels", {}).get(key, ""))


def _index(pod: JsonObject) -> int:
    return _whole(_label(pod, INDEX))


def _attempt(pod: JsonObject) -> int:
    return _whole(_label(pod, names.LABEL_ATTEMPT))


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _created(pod: JsonObject) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))
