"""`finetune create`: check, upload, create, follow; the order in which a person meets it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune_api.model_names import FINE_TUNED_MARK
from finetune_api.wire import JsonObject
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.create.flags import field_flags, field_values, join_betas
from finetune_cli.manifests import manifest, uploads
from finetune_cli.manifests.checking import check
from finetune_cli.manifests.uploads import Upload, is_local
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.configuration import ENVIRONMENT, save_upload_prefix, upload_prefix
from finetune_cli.terminal.console import Screen, file_line, show_objects, to_yaml
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_INTERRUPTED, EXIT_USAGE, program_name

if TYPE_CHECKING:
    from finetune_storage.s3 import Storage


FILE_FIELDS = ("trainingFile", "validationFile")
PLACEHOLDER_URI = "s3://bucket/key"  # of a file that has no address yet

EPILOG = """
\b
Examples:
  finetune create -t train.jsonl -v valid.jsonl -m curie \\
      --suffix "support tone" --upload-to s3://acme/data
  finetune create tone -t s3://acme/train.jsonl --n-epochs 2 --no-follow
  finetune create -f finetune.yaml --set hyperparameters.warmupRatio=0.1
  finetune get tone -o yaml | finetune create again -f - --n-epochs 6
"""


class CreateCommand(click.Command):
    """Takes the old tool's several values of one flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_betas(args))


@dataclass(frozen=True)
class UploadOptions:
    """How local files travel."""

    upload_to: str | None
    reuse: bool


@click.command(cls=CreateCommand, epilog=EPILOG)
@click.argument("name", required=False)
@click.option("-f", "--file", "source", metavar="FILE", help="A FineTune as YAML; - is stdin.")
@click.option("--training-file", "-t", "training_file", metavar="FILE", help="Local, or s3://.")
@click.option("--validation-file", "-v", "validation_file", metavar="FILE", help="Local, or s3://.")
@click.option("--model", "-m", "model", help="Of the catalog, or a fine-tuned one to go on from.")
@click.option("--suffix", help="Part of the fine-tuned model's name; at most 40 characters.")
@field_flags
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the spec."
)
@click.option(
    "--upload-to",
    metavar="S3",
    help=f"Prefix for local files; kept for the next time. Also {ENVIRONMENT}.",
)
@click.option(
    "--no-check-if-files-exist", "always", is_flag=True, help="Upload what is there, too."
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the FineTune, make nothing.")
@click.option(
    "--follow/--no-follow", "follows", default=None, help="[default: follow, but not with -o]"
)
@output_flag
@cluster_flags
def command(
    *,
    name: str | None,
    source: str | None,
    training_file: str | None,
    validation_file: str | None,
    model: str | None,
    suffix: str | None,
    settings: tuple[str, ...],
    upload_to: str | None,
    always: bool,
    dry_run: bool,
    follows: bool | None,
    output: str | None,
    target: ClusterTarget,
    **fields: Any,
) -> None:
    """Start a fine-tune: upload local files, create the FineTune, follow it.

    NAME is made up from the suffix or the training file when it is left out. Flags win over -f.
    A file whose content lies under --upload-to already is not sent again.
    """
    screen = Screen()
    written = manifest.read(source) if source else manifest.empty()
    folder = Path(source).parent if source and source != "-" else Path()
    written = with_full_paths(written, folder)
    flags = [
        ("trainingFile", training_file),
        ("validationFile", validation_file),
        ("model", model),
        ("suffix", suffix),
        *field_values(fields),
    ]
    values = [(path, value) for path, value in flags if value is not None]
    whole = manifest.with_values(written, [*values, *manifest.settings(settings)])
    whole = manifest.named(whole, name)
    _require_training_file(whole, has_file=source is not None)
    check(with_placeholder_uris(whole["spec"]))
    cluster = _cluster_for(whole, target)
    _require_fine_tuned(cluster, str(whole["spec"].get("model", "")))
    ready, sending = _with_addresses(whole, UploadOptions(upload_to, reuse=not always), screen)
    tried = cluster.finetunes.create(ready, dry_run=True)
    if dry_run:
        _show_dry_run(screen, ready, tried, sending, output)
        return
    try:
        _send(sending, screen)
    except KeyboardInterrupt as interrupt:
        raise CommandError(
            "interrupted: no fine-tune was made", code=EXIT_INTERRUPTED
        ) from interrupt
    if upload_to and save_upload_prefix(upload_to):  # now that it has proved to be right
        screen.note(f"Local files go to {upload_to} from now on.")
    made = cluster.finetunes.create(ready)
    made_name = made["metadata"]["name"]
    if output:
        show_objects(made, output)
    else:
        screen.say(f"Created fine-tune: {made_name}", "bold green")
    if not (output is None if follows is None else follows):
        if not output:
            screen.say(f"To follow it: {program_name()} follow {made_name}{target.flags}", "dim")
        return
    from finetune_cli.commands.follow.command import follow

    if not output:
        screen.say("Following it until it ends (Ctrl-C stops following, not the fine-tune)", "dim")
    raise SystemExit(follow(cluster, made_name, target))


def with_full_paths(written: JsonObject, folder: Path) -> JsonObject:
    """Local files in a manifest are relative to it, not to where the person stands."""
    spec = written["spec"]
    found = [
        (field, str(folder / Path(spec[field]).expanduser()))
        for field in FILE_FIELDS
        if is_local(spec.get(field))
    ]
    return manifest.with_values(written, found)


def _require_training_file(whole: JsonObject, *, has_file: bool) -> None:
    if "trainingFile" not in whole["spec"]:
        how = "spec.trainingFile is missing in the file" if has_file else "-t FILE is missing"
        raise CommandError(
            f"say what to train on: {how}",
            f"`{program_name()} create --help` has examples",
            code=EXIT_USAGE,
        )
    for field in FILE_FIELDS:
        if is_local(whole["spec"].get(field)):
            uploads.find_file(whole["spec"][field], Path())


def _require_fine_tuned(cluster: Cluster, model: str) -> None:
    """A fine-tuned model to go on from must be there; the catalog is the operator's to know."""
    from finetune_cli.artifacts.model_lookup import find_model
    from finetune_cli.cluster.errors import ApiError

    if FINE_TUNED_MARK not in model:
        return
    try:
        find_model(cluster, model)
    except ApiError as error:
        if error.status != HTTPStatus.FORBIDDEN and not error.is_missing_kind:
            raise


def with_placeholder_uris(spec: JsonObject) -> JsonObject:
    placeholders = {field: PLACEHOLDER_URI for field in FILE_FIELDS if is_local(spec.get(field))}
    return {**spec, **placeholders}


def _cluster_for(whole: JsonObject, target: ClusterTarget) -> Cluster:
    """The manifest's namespace counts, and must not contradict -n."""
    written = whole["metadata"].get("namespace")
    if written and target.namespace and written != target.namespace:
        raise CommandError(
            f"the file says namespace {written!r:.80}, and -n says {target.namespace!r:.80}",
            "leave one of them out",
            code=EXIT_USAGE,
        )
    return connect(ClusterTarget(target.kubeconfig, target.context, target.namespace or written))


def _with_addresses(
    whole: JsonObject, how: UploadOptions, screen: Screen
) -> tuple[JsonObject, list[Upload]]:
    """The manifest with S3 addresses, and the uploads that make them true."""
    local = {
        field: whole["spec"][field] for field in FILE_FIELDS if is_local(whole["spec"].get(field))
    }
    if how.upload_to:
        uploads.parse_prefix(how.upload_to)
    if not local:
        return whole, []
    prefix = how.upload_to or upload_prefix()
    if not prefix:
        first = next(iter(local.values()))
        raise CommandError(
            f"{first} is on this machine, and pods can't read it",
            "say where to put it: --upload-to s3://bucket/prefix (kept for the next time)",
            code=EXIT_USAGE,
        )
    storage = _storage()
    found: dict[str, Upload] = {}
    for field, address in local.items():
        path = uploads.find_file(address, Path())
        with screen.transfer(f"reading {path.name}") as progress:
            found[field] = uploads.plan(path, prefix, storage, progress, reuse=how.reuse)
    addresses = [(field, str(upload.uri)) for field, upload in found.items()]
    return manifest.with_values(whole, addresses), list(found.values())


def _send(sending: list[Upload], screen: Screen) -> None:
    sent: set[str] = set()
    for upload in sending:
        if upload.is_there or str(upload.uri) in sent:
            screen.note(f"{upload.path.name} is there already: {upload.uri}")
            continue
        with screen.transfer(f"uploading {upload.path.name}") as progress:
            uploads.send(upload, _storage(), progress)
        sent.add(str(upload.uri))
        screen.note(f"Uploaded {file_line(upload.path.name, upload.size)}: {upload.uri}")


def _show_dry_run(
    screen: Screen, ready: JsonObject, tried: JsonObject, sending: list[Upload], output: str | None
) -> None:
    """What would be made: as written for people, with all defaults for programs."""
    for upload in sending:
        verb = "is there already" if upload.is_there else "would be uploaded to"
        screen.note(f"{file_line(upload.path.name, upload.size)} {verb}: {upload.uri}")
    if output:
        show_objects(tried, output)
        return
    screen.say(to_yaml(ready).rstrip())
    screen.note("Nothing was made: the API server would accept this FineTune.")


def _storage() -> Storage:
    from finetune_storage.connect import open_storage

    return open_storage()
