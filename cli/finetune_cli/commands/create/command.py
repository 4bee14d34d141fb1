"""`finetune create`: check, upload, create, and follow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from finetune_api.model_names import FINE_TUNED_MARK
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.create.flags import field_flags, field_values, join_betas
from finetune_cli.commands.create.uploading import plan_uploads, send_uploads, show_planned
from finetune_cli.manifests import manifest, uploads
from finetune_cli.manifests.checking import check
from finetune_cli.manifests.local_files import local_files, spec_with_placeholders, with_full_paths
from finetune_cli.manifests.training_files import FIELDS, field_of_flags, without_other_field
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.configuration import UPLOAD_TO_VARIABLE, save_upload_prefix
from finetune_cli.terminal.console import Screen, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE, program_name

EPILOG = """
\b
Examples:
  finetune create -t train.jsonl -v valid.jsonl -m curie \\
      --suffix "support tone" --upload-to s3://acme/data
  finetune create tone -t s3://acme/train.jsonl --n-epochs 2 --no-follow
  finetune create more -t old.jsonl=3 -t corrections.jsonl=1 -m curie
  finetune create -f finetune.yaml --set dataTolerance=0.01
  finetune get tone -o yaml | finetune create again -f - --n-epochs 6
"""


class CreateCommand(click.Command):
    """Accepts several values after one flag, as OpenAI's command line does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_betas(args))


@dataclass(frozen=True)
class CreateOptions:
    """The command line of `finetune create`, except for the flags of single fields."""

    name: str | None
    source: str | None
    training_files: tuple[str, ...]
    validation_file: str | None
    model: str | None
    suffix: str | None
    settings: tuple[str, ...]
    upload_to: str | None
    always_upload: bool
    dry_run: bool
    follows: bool | None
    output: str | None
    target: ClusterTarget


@click.command(cls=CreateCommand, epilog=EPILOG)
@click.argument("name", required=False)
@click.option(
    "-f", "--file", "source", metavar="FILE", help="FineTune manifest in YAML; - reads stdin."
)
@click.option(
    "--training-file",
    "-t",
    "training_files",
    multiple=True,
    metavar="FILE[=WEIGHT]",
    help="Local file or s3:// address. Repeat the flag for several files; weights are the "
    "proportions of their examples in an epoch.",
)
@click.option(
    "--validation-file",
    "-v",
    "validation_file",
    metavar="FILE",
    help="Local file or s3:// address.",
)
@click.option(
    "--model",
    "-m",
    "model",
    help="Base model from the catalog, or a fine-tuned model to continue training.",
)
@click.option("--suffix", help="Part of the fine-tuned model's name; at most 64 characters.")
@field_flags
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Set any field of the spec."
)
@click.option(
    "--upload-to",
    metavar="S3",
    help=f"S3 prefix for local files; saved for the next time.  [env: {UPLOAD_TO_VARIABLE}]",
)
@click.option(
    "--no-check-if-files-exist",
    "always_upload",
    is_flag=True,
    help="Re-upload files even if identical content already exists under --upload-to.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check and print the FineTune without creating anything."
)
@click.option(
    "--follow/--no-follow",
    "follows",
    default=None,
    help="Follow the fine-tune until it ends.  [default: follow, unless -o is set]",
)
@output_flag
@cluster_flags
def command(**given: Any) -> None:
    """Create a fine-tune: upload local files, create the FineTune, and follow it.

    If you omit NAME, it is generated from the suffix or the name of the training file. Flags
    override the values of -f. A file is not uploaded again if its content already exists under
    --upload-to.
    """
    names = {field.name for field in fields(CreateOptions)}
    options = CreateOptions(**{name: given.pop(name) for name in names})
    _create(options, field_values(given))


def _create(options: CreateOptions, values: list[tuple[str, Any]]) -> None:
    """values: (path, value) of the flags for single fields."""
    screen = Screen()
    whole = _manifest(options, values)
    check(spec_with_placeholders(whole))
    cluster = _cluster_for(whole, options.target)
    _require_fine_tuned(cluster, str(whole["spec"].get("model", "")))
    reuse = not options.always_upload
    ready, planned = plan_uploads(whole, options.upload_to, screen, reuse=reuse)
    accepted = cluster.finetunes.create(ready, dry_run=True)
    if options.dry_run:
        show_planned(planned, screen)
        _show_dry_run(screen, ready, accepted, options.output)
        return
    send_uploads(planned, screen)
    if options.upload_to and save_upload_prefix(options.upload_to):  # only after it has worked
        screen.note(f"Saved {options.upload_to} as the destination for local files.")
    created = cluster.finetunes.create(ready)
    name = created["metadata"]["name"]
    if options.output:
        show_objects(created, options.output)
    else:
        screen.say(f"Created fine-tune: {name}", "bold green")
    if not (options.output is None if options.follows is None else options.follows):
        if not options.output:
            screen.say(f"Follow it: {program_name()} follow {name}{options.target.flags}", "dim")
        return
    from finetune_cli.commands.follow.command import follow

    if not options.output:
        screen.say("Following the fine-tune. Ctrl-C stops following, not the fine-tune.", "dim")
    raise SystemExit(follow(cluster, name, options.target))


def _manifest(options: CreateOptions, values: list[tuple[str, Any]]) -> JsonObject:
    """The manifest from the file, the flags, and --set, in this order."""
    source = options.source
    written = manifest.read(source) if source else manifest.empty()
    folder = Path(source).parent if source and source != "-" else Path()
    written = with_full_paths(written, folder)
    flags: list[tuple[str, Any]] = [
        ("validationFile", options.validation_file),
        ("model", options.model),
        ("suffix", options.suffix),
    ]
    given = [(path, value) for path, value in flags if value is not None]
    if options.training_files:
        given.append(field_of_flags(options.training_files))
    given += [*values, *manifest.settings(options.settings)]
    whole = manifest.with_values(written, given)
    whole = without_other_field(whole, [path for path, _ in given])
    whole = manifest.named(whole, options.name)
    _require_training_file(whole, has_file=source is not None)
    return whole


def _require_training_file(whole: JsonObject, *, has_file: bool) -> None:
    if not any(field in whole["spec"] for field in FIELDS):
        what = "spec.trainingFile or spec.trainingFiles in the file" if has_file else "-t FILE"
        raise CommandError(
            f"missing training file: set {what}",
            f"`{program_name()} create --help` has examples",
            code=EXIT_USAGE,
        )
    for path in local_files(whole).values():
        uploads.find_file(path, Path())


def _require_fine_tuned(cluster: Cluster, model: str) -> None:
    """Require that a fine-tuned model exists. Only the operator knows the catalog."""
    from finetune_cli.artifacts.model_lookup import find_model
    from finetune_cli.cluster.errors import ApiError

    if FINE_TUNED_MARK not in model:
        return
    try:
        find_model(cluster, model)
    except ApiError as error:
        if error.status != HTTPStatus.FORBIDDEN and not error.is_missing_kind:
            raise


def _cluster_for(whole: JsonObject, target: ClusterTarget) -> Cluster:
    """A connection to the namespace of the manifest, which must not contradict -n."""
    written = whole["metadata"].get("namespace")
    if written and target.namespace and written != target.namespace:
        raise CommandError(
            f"the file has namespace {written!r:.80}, but -n is {target.namespace!r:.80}",
            "remove one of them",
            code=EXIT_USAGE,
        )
    return connect(ClusterTarget(target.kubeconfig, target.context, target.namespace or written))


def _show_dry_run(
    screen: Screen, ready: JsonObject, accepted: JsonObject, output: str | None
) -> None:
    """Print the manifest as written for users, and with all defaults for programs."""
    if output:
        show_objects(accepted, output)
        return
    show_objects(ready, "yaml")
    screen.note("Nothing was created. The API server would accept this FineTune.")
