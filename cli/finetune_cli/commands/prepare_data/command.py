"""The command itself: read, show, ask, write; the order in which a person meets it."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import Literal

import click

from finetune_api.limits import DataLimits
from finetune_api.names import EXIT_USER
from finetune_cli.artifacts.base_models import load_base_tokenizer, storage_for
from finetune_cli.commands.prepare_data.outcome import (
    Target,
    ask_for_split,
    check_names,
    choose,
    create_command,
    manifest,
    propose,
    write,
)
from finetune_cli.commands.prepare_data.report import check_suffix, write_report
from finetune_cli.commands.prepare_data.screen import Screen
from finetune_data.lint.fixes import Fix
from finetune_data.lint.inspection import inspect
from finetune_data.read.reader import Reader, ReadOptions
from finetune_data.read.sources import find_sources

MEBIBYTE = 1024 * 1024
FORMATS = ("csv", "tsv", "xlsx", "json", "jsonl", "txt", "parquet")

EPILOG = """
\b
Examples:
  finetune prepare-data support.xlsx
  finetune prepare-data train.jsonl --validation-file valid.jsonl --model ./my-base-model
  finetune prepare-data 's3://acme/raw/*.csv.gz' --prompt-column question --completion-column answer
  finetune prepare-data labels.csv --profile completion --split --yes --report report.html
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-v",
    "--validation-file",
    "validation",
    multiple=True,
    metavar="FILE",
    help="Checked too, and against the training files. May be given several times.",
)
@click.option(
    "--profile",
    type=click.Choice(["auto", "completion", "chat"]),
    default="auto",
    show_default=True,
    help="completion: also the style rules of prompt/completion data (separator, stop sequence, "
    "leading space). auto: those that the data follows already.",
)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="Folder, s3:// or hf:// of the base model: lengths are counted in its own tokens.",
)
@click.option("--context", type=click.IntRange(min=8), help="Tokens an example may have.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    help="What the files are, where their content and ending mislead.",
)
@click.option("--sheet", metavar="NAME", help="Of a workbook.  [default: the first]")
@click.option("--prompt-column", metavar="NAME", help="The column that is the prompt.")
@click.option("--completion-column", metavar="NAME", help="The column that is the completion.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the prepared files.  [default: beside the first file]",
)
@click.option(
    "--split/--no-split",
    "wants_split",
    default=None,
    help="Split off a validation file: stratified by class, rows of one prompt together.  "
    "[default: ask]",
)
@click.option(
    "--validation-share",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.2,
    show_default=True,
    help="Of the examples; at most 1,000.",
)
@click.option("--seed", type=int, default=42, show_default=True, help="Of the split.")
@click.option("-y", "--yes", is_flag=True, help="Accept every change that loses nothing; ask none.")
@click.option(
    "--fix",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="Accept this change too: `--dry-run` names them.",
)
@click.option("--skip-fix", "unwanted", multiple=True, metavar="NAME", help="Leave this one out.")
@click.option("--dry-run", is_flag=True, help="Only look: nothing is asked or written.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Everything that was found, as .json or .html.",
)
@click.option(
    "--max-file-mib",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Larger files are refused, after decompression too.",
)
def command(
    files: tuple[str, ...],
    *,
    validation: tuple[str, ...],
    profile: Literal["auto", "completion", "chat"],
    model: str | None,
    context: int | None,
    format_name: str | None,
    sheet: str | None,
    prompt_column: str | None,
    completion_column: str | None,
    output: Path | None,
    wants_split: bool | None,
    validation_share: float,
    seed: int,
    yes: bool,
    wanted: tuple[str, ...],
    unwanted: tuple[str, ...],
    dry_run: bool,
    report: Path | None,
    max_file_mib: int,
) -> None:
    """Check data files for fine-tuning, and write JSONL that is ready to train on.

    FILE is a CSV, TSV, XLSX, JSON, JSONL, TXT or Parquet file, plain or .gz/.zst; a folder, a
    pattern, or an address in S3. No file is ever changed or overwritten. Every change is
    proposed first; with --yes those are made that lose nothing.
    """
    check_suffix(report)
    screen = Screen()
    options = ReadOptions(
        limits=DataLimits(max_file_bytes=max_file_mib * MEBIBYTE),
        format=format_name,
        sheet=sheet,
        prompt_column=prompt_column,
        completion_column=completion_column,
    )
    with tempfile.TemporaryDirectory(prefix="finetune-") as name:
        folder = Path(name)
        storage = storage_for([*files, *validation, model or ""])
        training = [Reader(it, options) for it in find_sources(files, storage, folder)]
        held_out = [Reader(it, options) for it in find_sources(validation, storage, folder)]
        base = load_base_tokenizer(model, context, storage, folder) if model else None
        with screen.progress("checking") as progress:
            inspection = inspect(
                training,
                held_out,
                profile=profile,
                tokenizer=base.tokenizer if base else None,
                context=base.context if base else None,
                progress=progress,
            )
        descriptions = [reader.description for reader in (*training, *held_out)]
        for description in descriptions:
            screen.file(description)
        screen.summary(inspection)
        screen.findings(inspection)
        accepted: list[Fix] = []
        if dry_run:
            check_names(inspection, wanted)
            propose(screen, inspection)
        else:
            accepted = choose(screen, inspection, yes=yes, wanted=wanted, unwanted=unwanted)
        if report is not None:
            screen.say(f"report: {write_report(report, descriptions, inspection, accepted)}")
        unsolved = [
            it for it in inspection.remarks if it.level == "error" and it.fix not in accepted
        ]
        if unsolved:
            screen.warn(
                "not ready: what is called an error must be mended first"
                if dry_run  # which would write nothing anyway
                else "nothing was written: what is called an error stands in the way"
            )
            raise SystemExit(EXIT_USER)
        if dry_run:
            return
        target = Target(
            folder=output or _beside(files[0]), stem=_stem(training[0].source.name), seed=seed
        )
        wants = wants_split if wants_split is not None else ask_for_split(screen, inspection)
        share = validation_share if wants and not held_out else None
        written = write(
            screen,
            training,
            held_out,
            accepted=accepted,
            inspection=inspection,
            target=target,
            share=share,
        )
        screen.written(written)
        screen.code("Next, upload and start:", create_command(written))
        screen.code(
            "Or upload yourself, then a FineTune (kubectl apply -f -):",
            manifest(inspection, accepted, written),
        )


def _beside(address: str) -> Path:
    if address.startswith("s3://"):
        return Path.cwd()
    path = Path(address)
    return path if path.is_dir() else path.parent


def _stem(name: str) -> str:
    """`train` of `folder/train.csv.gz`."""
    return PurePosixPath(name.replace("\\", "/")).name.partition(".")[0] or "data"
