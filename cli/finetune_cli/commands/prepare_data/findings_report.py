"""Writes the findings to a JSON or HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from finetune_data.lint.fixes import Fix
    from finetune_data.lint.inspection import Inspection
    from finetune_data.read.records import Description

TEMPLATE = "findings_report.html.jinja"
SUFFIXES = {".json", ".html"}


def check_suffix(path: Path | None) -> None:
    """Raise click.BadParameter for a name with another suffix."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(
            f"{path}: the name must end in .json or .html", param_hint="--report"
        )


def write_report(
    path: Path, files: Sequence[Description], inspection: Inspection, accepted: Sequence[Fix]
) -> Path:
    """Write the report; returns its path. A number is added to the name of an existing file."""
    value = report_value(files, inspection, accepted)
    if path.suffix.lower() == ".json":
        text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    else:
        text = render(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        name = f"{path.stem}-{number}{path.suffix}" if number else path.name
        try:
            with path.with_name(name).open("x", encoding="utf-8") as file:
                file.write(text)
            return path.with_name(name)
        except FileExistsError:
            number += 1


def report_value(
    files: Sequence[Description], inspection: Inspection, accepted: Sequence[Fix]
) -> dict[str, Any]:
    """All findings as JSON values."""
    return {
        "files": [asdict(file) for file in files],
        "kind": inspection.kind,
        "examples": inspection.examples,
        "validationExamples": inspection.validation_examples,
        "wrongLines": inspection.wrong,
        "refusedExamples": inspection.refused,
        "tokens": inspection.tokens,
        "characters": inspection.characters,
        "findings": [
            {
                "line": finding.line,
                "column": finding.column,
                "code": finding.code,
                "message": finding.message,
            }
            for finding in inspection.findings
        ],
        "remarks": [
            {
                "check": remark.check,
                "level": remark.level,
                "message": remark.message,
                "count": remark.count,
                "places": list(remark.places),
                "samples": list(remark.samples),
                "fix": remark.fix
                and {
                    "name": remark.fix.name,
                    "proposal": remark.fix.proposal,
                    "losesSomething": remark.fix.loses,
                    "isAccepted": remark.fix in accepted,
                },
            }
            for remark in inspection.remarks
        ],
        "classes": [{"label": label, "examples": n} for label, n in inspection.classes or ()],
        "lengthUnit": inspection.length_unit,
        "lengths": [{"range": label, "examples": n} for label, n in inspection.lengths],
    }


def render(value: dict[str, Any]) -> str:
    """A self-contained HTML page; untrusted text is escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("finetune_cli.commands.prepare_data", "."),
        autoescape=True,
        trim_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment.get_template(TEMPLATE).render(**value)
