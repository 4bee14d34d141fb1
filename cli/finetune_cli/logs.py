"""`finetune logs`: what a pod of a FineTune prints, found by the FineTune's name."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import click

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.errors import ApiError, UnreachableError
from finetune_cli.cluster.objects import read_finetune
from finetune_cli.complaints import CommandError
from finetune_cli.options import Place, cluster_flags, name_argument
from finetune_cli.programs import program
from finetune_cli.screen import Screen
from finetune_cli.wording import printable

Raw = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
SILENCE_SECONDS = 3600.0  # a training may print nothing for long


@click.command()
@name_argument
@click.option(
    "--node", type=click.IntRange(min=0), default=0, show_default=True, help="Pod of the gang."
)
@click.option("--attempt", type=click.IntRange(min=1), help="[default: the last]")
@click.option("--prepare", is_flag=True, help="Of the Job that checks the data instead.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on as it grows.")
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
    place: Place,
) -> None:
    """What the pods print; the last lines in the status where the pods are gone.

    Pod 0 tells the losses; the others tell of themselves.
    """
    cluster = connect(place)
    finetune = read_finetune(cluster.finetunes.get(name))
    pod = choose(_pods(cluster, finetune), node=node, attempt=attempt, prepare=prepare)
    if pod is None:
        _show_last_words(finetune, place)
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
        if error.status != 400:
            raise
        raise CommandError(
            f"pod {meta['name']} has printed nothing yet: {error.message}",
            f"`{program()} follow {name}{place.flags}` says what it waits for",
        ) from error
    except UnreachableError as error:
        raise CommandError(
            f"the log broke off: {error.why}", "the same command with --tail goes on"
        ) from error


def choose(pods: Sequence[Raw], *, node: int, attempt: int | None, prepare: bool) -> Raw | None:
    """The newest pod that is meant: of the last attempt, or of the prepare Job.

    Before the first attempt the prepare pod speaks for the gang.
    """
    kinds = {
        kind: [pod for pod in pods if _label(pod, names.LABEL_COMPONENT) == kind]
        for kind in (names.COMPONENT_PREPARE, names.COMPONENT_TRAIN)
    }
    gang = [pod for pod in kinds[names.COMPONENT_TRAIN] if _index(pod) == node]
    if attempt is not None:
        gang = [pod for pod in gang if _attempt(pod) == attempt]
    is_early = not kinds[names.COMPONENT_TRAIN] and attempt is None and node == 0
    found = kinds[names.COMPONENT_PREPARE] if prepare or is_early else gang
    return max(found, key=lambda pod: (_attempt(pod), _created(pod)), default=None)


def _pods(cluster: Cluster, finetune: FineTune) -> list[Raw]:
    meta = finetune.metadata
    answer = cluster.request(
        "GET",
        f"/api/v1/namespaces/{quote(meta.namespace)}/pods",
        query={"labelSelector": f"{names.LABEL_UID}={meta.uid}"},
    )
    items: list[Raw] = answer["items"]
    return items


def _show_last_words(finetune: FineTune, place: Place) -> None:
    """The pods are gone, or not there yet: what the status kept of them."""
    status, name = finetune.status, finetune.metadata.name
    kept = (status.error.log if status.error else None) or []
    if not kept:
        raise CommandError(
            f"fine-tune {name} ({status.state or 'pending'}) has no such pod",
            f"`{program()} get {name}{place.flags}` tells its story",
        )
    Screen().note("the pods are gone; the last lines that the status kept:")
    for line in kept:
        click.echo(printable(line))


def _text(lines: Iterator[bytes]) -> Iterator[str]:
    """A pod may print anything: a terminal gets no control characters, a pipe what was printed."""
    is_terminal = sys.stdout.isatty()
    for line in lines:
        text = line.decode("utf-8", "replace")
        yield printable(text.rpartition("\r")[2]) if is_terminal else text


def _label(pod: Raw, key: str) -> str:
    return str(pod["metadata"].get("labels", {}).get(key, ""))


def _index(pod: Raw) -> int:
    return _whole(_label(pod, INDEX))


def _attempt(pod: Raw) -> int:
    return _whole(_label(pod, names.LABEL_ATTEMPT))


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _created(pod: Raw) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))
