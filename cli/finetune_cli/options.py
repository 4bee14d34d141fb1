"""Options that several commands share, spelled as in kubectl and OpenAI's command line."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from finetune_api.text.sanitizing import sanitize
from finetune_cli.cluster.target import ClusterTarget

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

FORMATS = ("csv", "tsv", "xlsx", "json", "jsonl", "txt", "parquet")
Function = TypeVar("Function", bound=Callable[..., Any])


def cluster_flags(function: Function) -> Function:
    """Add --kubeconfig, --context, and --namespace, passed as one argument `target`."""

    @click.option(
        "--kubeconfig",
        metavar="FILE",
        help="Kubeconfig file.  [default: $KUBECONFIG, then ~/.kube/config]",
    )
    @click.option(
        "--context", metavar="NAME", help="Kubeconfig context.  [default: the current context]"
    )
    @click.option(
        "-n", "--namespace", metavar="NAME", help="Namespace.  [default: the context's namespace]"
    )
    @wraps(function)
    def wrapper(
        *arguments: Any,
        kubeconfig: str | None,
        context: str | None,
        namespace: str | None,
        **settings: Any,
    ) -> Any:
        target = ClusterTarget(kubeconfig, context, namespace).with_defaults(
            click.get_current_context().obj
        )
        return function(*arguments, target=target, **settings)

    return wrapper  # type: ignore[return-value]


def output_folder_flag(content: str) -> Callable[[Function], Function]:
    """Add -o/--output-folder of the commands that train on this machine. content: its help."""
    return click.option(
        "-o",
        "--output-folder",
        default="finetune-output",
        show_default=True,
        type=click.Path(file_okay=False, path_type=Path),
        help=content,
    )


def models_flag(function: Function) -> Function:
    """Add --models: base models of the user in addition to the catalog."""
    option = click.option(
        "--models",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="YAML list of additional base models: name, uri (may be a folder), "
        "pretrainingLearningRate, contextLength.",
    )
    return option(function)


def output_flag(function: Function) -> Function:
    """Add -o json|yaml; None: output for users."""
    option = click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(["json", "yaml"]),
        help="Print machine-readable output.",
    )
    return option(function)


def reading_flags(function: Function) -> Function:
    """Add the options that say how a data file is read: the fields of `ReadOptions`."""
    options = (
        click.option(
            "--format",
            "format_name",
            type=click.Choice(FORMATS),
            help="Format of the files, if it cannot be detected from their content and extension.",
        ),
        click.option(
            "--encoding",
            metavar="NAME",
            callback=_known_encoding,
            help="Encoding of text files, such as cp1252 for CSV files of Excel on Windows.  "
            "[default: UTF-8 or UTF-16]",
        ),
        click.option(
            "--sheet", metavar="NAME", help="Sheet of a workbook.  [default: the first sheet]"
        ),
        click.option("--prompt-column", metavar="NAME", help="Column that contains the prompts."),
        click.option(
            "--completion-column", metavar="NAME", help="Column that contains the completions."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _known_encoding(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    """Python's name for an encoding. Raises click.BadParameter for any other name."""
    if name is None:
        return None
    try:
        "a".encode(name)  # LookupError for codecs that do not encode text, too
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise click.BadParameter(f"{name!r:.40} is no encoding of text") from error


def name_argument(function: Function) -> Function:
    """Add NAME of a FineTune, and the alias `-i NAME` of OpenAI's command line."""

    @click.argument("name", required=False, shell_complete=complete_names)
    @click.option("-i", "--id", "old_name", hidden=True, metavar="NAME")
    @wraps(function)
    def wrapper(*arguments: Any, name: str | None, old_name: str | None, **settings: Any) -> Any:
        return function(*arguments, name=_one_name(name, old_name), **settings)

    return wrapper  # type: ignore[return-value]


def _one_name(name: str | None, old_name: str | None) -> str:
    found = name or old_name
    if not found:
        raise click.UsageError("missing NAME of a fine-tune; `list` shows all names")
    return found


def completion_target(ctx: click.Context) -> ClusterTarget:
    """The cluster of a command line that is being completed: its flags, then the outer ones."""
    found, outer = ctx.params, ctx.find_root().params
    keys = ("kubeconfig", "context", "namespace")
    return ClusterTarget(**{key: found.get(key) or outer.get(key) for key in keys})


def complete_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """FineTune names for shell completion; none if the cluster does not respond."""
    from click.shell_completion import CompletionItem

    from finetune_cli.cluster.connection import connect
    from finetune_cli.terminal.errors import CommandError

    try:
        items = connect(completion_target(ctx), timeout=2).finetunes.list()
    except CommandError:
        return []
    return [
        CompletionItem(
            sanitize(item["metadata"]["name"]),
            help=sanitize(str(item.get("status", {}).get("state") or "")),
        )
        for item in items
        if item["metadata"]["name"].startswith(incomplete)
    ]
