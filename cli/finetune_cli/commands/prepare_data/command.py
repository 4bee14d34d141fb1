"""`finetune prepare-data`: read, show, ask, and write."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import click

from finetune_api.limits import DataLimits
from finetune_api.names import EXIT_USER
from finetune_cli.artifacts.base_models import load_base_tokenizer, storage_for
from finetune_cli.commands.prepare_data.examples import show_examples
from finetune_cli.commands.prepare_data.findings_report import check_suffix, write_report
from finetune_cli.commands.prepare_data.fix_selection import (
    check_fix_names,
    choose_fixes,
    list_fixes,
)
from finetune_cli.commands.prepare_data.next_steps import create_command, manifest
from finetune_cli.commands.prepare_data.output import (
    Destination,
    ask_for_split,
    require_accepted,
    write,
)
from finetune_cli.commands.prepare_data.screen import FindingsScreen
from finetune_cli.options import reading_flags
from finetune_data.lint.fixes import Fix, Side, fixes_of
from finetune_data.lint.inspection import Inspection, inspect
from finetune_data.read.reader import Reader, ReadOptions
from finetune_data.read.sources import find_sources
from finetune_data.rewrite.rewriting import kept_by
from finetune_data.tokenize.acceptance import Acceptance

MEBIBYTE = 1024 * 1024

EPILOG = """
\b
Examples:
  finetune prepare-data support.xlsx
  finetune prepare-data train.jsonl -v valid.jsonl --model ./my-base-model
  finetune prepare-data chats.jsonl --model ./my-base-model --show 2
  finetune prepare-data 's3://acme/raw/*.csv.gz' \\
      --prompt-column question --completion-column answer
  finetune prepare-data labels.csv --profile completion --split --yes \\
      --report report.html
"""


@dataclass(frozen=True)
class PrepareOptions:
    """The command line of `finetune prepare-data`."""

    files: tuple[str, ...]
    validation: tuple[str, ...]
    profile: Literal["auto", "completion", "chat"]
    model: str | None
    context: int | None
    format_name: str | None
    encoding: str | None
    sheet: str | None
    prompt_column: str | None
    completion_column: str | None
    output: Path | None
    wants_split: bool | None
    validation_share: float
    seed: int
    yes: bool
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    dry_run: bool
    report: Path | None
    max_file_mib: int
    show: int | None

    @property
    def read_options(self) -> ReadOptions:
        return ReadOptions(
            limits=DataLimits(max_file_bytes=self.max_file_mib * MEBIBYTE),
            format=self.format_name,
            encoding=self.encoding,
            sheet=self.sheet,
            prompt_column=self.prompt_column,
            completion_column=self.completion_column,
        )


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-v",
    "--validation-file",
    "validation",
    multiple=True,
    metavar="FILE",
    help="Validation file; it is also compared with the training files. May be repeated.",
)
@click.option(
    "--profile",
    type=click.Choice(["auto", "completion", "chat"]),
    default="auto",
    show_default=True,
    help="Checks to run. completion adds the style rules of prompt/completion data: separator, "
    "stop sequence, leading space. auto adds the rules that the data already follows.",
)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="Base model: a folder, s3://, or hf://. Its tokenizer and chat template check every "
    "example as a fine-tune does.",
)
@click.option(
    "--show",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show the first N examples token by token: what the model reads, what it learns to write, "
    "and what ends each answer. Requires --model.",
)
@click.option("--context", type=click.IntRange(min=8), help="Maximum number of tokens per example.")
@reading_flags
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the prepared files.  [default: the folder of the first file]",
)
@click.option(
    "--split/--no-split",
    "wants_split",
    default=None,
    help="Split off a validation file, stratified by class. Rows with equal prompts stay in the "
    "same file.  [default: ask]",
)
@click.option(
    "--validation-share",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.2,
    show_default=True,
    help="Fraction of the examples in the validation file, which has at most 1,000 examples.",
)
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of the split.")
@click.option(
    "-y", "--yes", is_flag=True, help="Accept all changes that lose no data, without asking."
)
@click.option(
    "--fix",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="Accept this change; --dry-run lists the names. May be repeated.",
)
@click.option(
    "--skip-fix",
    "unwanted",
    multiple=True,
    metavar="NAME",
    help="Do not make this change. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Check the files without asking or writing.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all findings to a .json or .html file.",
)
@click.option(
    "--max-file-mib",
    type=click.IntRange(min=1),
    default=DataLimits().max_file_bytes // MEBIBYTE,
    show_default=True,
    help="Maximum size of a file in MiB, before and after decompression. The default is that of a "
    "fine-tune (chart value data.maxFileBytes).",
)
def command(**given: Any) -> None:
    """Check data files for fine-tuning and write JSONL files for training.

    FILE is a CSV, TSV, XLSX, JSON, JSONL, TXT, or Parquet file, which may be compressed (.gz,
    .zst), a folder, a pattern, or an S3 address. The command never changes or overwrites existing
    files. On a terminal, it asks before each change. With --yes, it makes all changes
    that lose no data.
    """
    options = PrepareOptions(**given)
    check_suffix(options.report)
    if options.show and not options.model:
        raise click.UsageError("--show requires --model: tokens depend on the base model")
    with tempfile.TemporaryDirectory(prefix="finetune-") as name:
        _prepare(options, FindingsScreen(), Path(name))


def _prepare(options: PrepareOptions, screen: FindingsScreen, folder: Path) -> None:
    """folder: for downloads."""
    storage = storage_for([*options.files, *options.validation, options.model or ""])
    training, held_out = (
        [Reader(source, options.read_options) for source in find_sources(files, storage, folder)]
        for files in (options.files, options.validation)
    )
    base = None
    if options.model:
        base = load_base_tokenizer(options.model, options.context, storage, folder)
    with screen.progress("checking") as progress:
        inspection = inspect(
            training,
            held_out,
            profile=options.profile,
            tokenizer=base.tokenizer if base else None,
            context=base.context if base else None,
            model=options.model or "",
            progress=progress,
        )
    descriptions = [reader.description for reader in (*training, *held_out)]
    for description in descriptions:
        screen.file(description)
    screen.summary(inspection)
    screen.findings(inspection)
    accepted = _accepted(options, screen, inspection)
    if options.report is not None:
        path = write_report(options.report, descriptions, inspection, accepted)
        screen.say(f"report: {path}")
    acceptance = None
    if base is not None and inspection.fits_model:
        acceptance = Acceptance(base.tokenizer, options.model or "", base.context)
    if acceptance is not None and options.show:
        changes = fixes_of("training", accepted)
        show_examples(screen, training, changes, acceptance, options.show)
    _require_no_errors(options, screen, inspection, accepted)
    if not options.dry_run:
        if acceptance is not None:
            require_accepted(screen, training, fixes_of("training", accepted), acceptance)
            require_accepted(screen, held_out, fixes_of("validation", accepted), acceptance)
        _write(
            options,
            screen,
            training=training,
            held_out=held_out,
            inspection=inspection,
            accepted=accepted,
        )


def _accepted(options: PrepareOptions, screen: FindingsScreen, inspection: Inspection) -> list[Fix]:
    if options.dry_run:
        check_fix_names(inspection, options.wanted)
        list_fixes(screen, inspection)
        return []
    return choose_fixes(
        screen, inspection, yes=options.yes, wanted=options.wanted, unwanted=options.unwanted
    )


def _require_no_errors(
    options: PrepareOptions, screen: FindingsScreen, inspection: Inspection, accepted: Sequence[Fix]
) -> None:
    errors = [it for it in inspection.remarks if it.level == "error" and it.fix not in accepted]
    if errors:
        screen.warn(
            "The data is not ready. Fix all errors first."
            if options.dry_run  # which never writes
            else "Nothing was written. Fix all errors first."
        )
        raise SystemExit(EXIT_USER)
    sides: list[tuple[Side, int]] = [("training", inspection.examples)]
    if options.validation:
        sides.append(("validation", inspection.validation_examples))
    for side, examples in sides:
        if not kept_by(fixes_of(side, accepted), examples).any():
            screen.warn(f"Nothing was written. No {side} example is left.")
            raise SystemExit(EXIT_USER)


def _write(
    options: PrepareOptions,
    screen: FindingsScreen,
    *,
    training: Sequence[Reader],
    held_out: Sequence[Reader],
    inspection: Inspection,
    accepted: Sequence[Fix],
) -> None:
    """Write the files and print the next steps."""
    wants_split = options.wants_split
    if wants_split is None:
        wants_split = ask_for_split(screen, inspection)
    folder = options.output or _folder_of(options.files[0])
    written = write(
        screen,
        training,
        held_out,
        accepted=accepted,
        inspection=inspection,
        destination=Destination(folder, _stem(training[0].source.name)),
        share=options.validation_share if wants_split and not held_out else None,
        seed=options.seed,
    )
    screen.written(written)
    screen.code("To upload the files and create a fine-tune, run:", create_command(written))
    screen.code(
        "Or upload the files yourself and apply this manifest with `kubectl apply -f -`:",
        manifest(inspection, accepted, written),
    )


def _folder_of(address: str) -> Path:
    if address.startswith("s3://"):
        return Path.cwd()
    path = Path(address)
    return path if path.is_dir() else path.parent


def _stem(name: str) -> str:
    """`train` from `folder/train.csv.gz`."""
    return PurePosixPath(name.replace("\\", "/")).name.partition(".")[0] or "data"
