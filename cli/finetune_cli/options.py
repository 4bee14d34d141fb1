"""Options that many commands share, spelt as kubectl's and the old tool's users know them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from finetune_cli.cluster.target import ClusterTarget

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Function = TypeVar("Function", bound=Callable[..., Any])


def cluster_flags(function: Function) -> Function:
    """--kubeconfig, --context and --namespace, as one argument `place`."""

    @click.option("--kubeconfig", metavar="FILE", help="[default: $KUBECONFIG, ~/.kube/config]")
    @click.option("--context", metavar="NAME", help="Of the kubeconfig.  [default: the current]")
    @click.option("-n", "--namespace", metavar="NAME", help="[default: the context's]")
    @wraps(function)
    def wrapper(
        *arguments: Any,
        kubeconfig: str | None,
        context: str | None,
        namespace: str | None,
        **settings: Any,
    ) -> Any:
        place = ClusterTarget(kubeconfig, context, namespace).behind(
            click.get_current_context().obj
        )
        return function(*arguments, place=place, **settings)

    return wrapper  # type: ignore[return-value]


def output_flag(function: Function) -> Function:
    """-o json|yaml; None is for people."""
    option = click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(["json", "yaml"]),
        help="For programs.  [default: for people]",
    )
    return option(function)


def name_argument(function: Function) -> Function:
    """NAME of a FineTune; the old tool's `-i NAME` is taken too."""

    @click.argument("name", required=False, shell_complete=complete_names)
    @click.option("-i", "--id", "old_name", hidden=True, metavar="NAME")
    @wraps(function)
    def wrapper(*arguments: Any, name: str | None, old_name: str | None, **settings: Any) -> Any:
        return function(*arguments, name=_one_name(name, old_name), **settings)

    return wrapper  # type: ignore[return-value]


def _one_name(name: str | None, old_name: str | None) -> str:
    found = name or old_name
    if not found:
        raise click.UsageError("say which fine-tune: NAME is missing (`list` shows all)")
    return found


def complete_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of FineTunes for the shell; nothing at all when the cluster does not answer."""
    from click.shell_completion import CompletionItem

    from finetune_cli.cluster.connection import connect
    from finetune_cli.terminal.errors import CommandError

    found = {key: ctx.params.get(key) for key in ("kubeconfig", "context", "namespace")}
    outer = ctx.parent.params if ctx.parent else {}
    place = ClusterTarget(**{key: value or outer.get(key) for key, value in found.items()})
    try:
        items = connect(place, patience=2).finetunes.list()
    except CommandError:
        return []
    return [
        CompletionItem(item["metadata"]["name"], help=item.get("status", {}).get("state") or "")
        for item in items
        if item["metadata"]["name"].startswith(incomplete)
    ]
