"""Leaving the page and the card where they belong; a report never costs a trained model."""

import traceback
from pathlib import Path

from finetune_api.uris import S3Uri
from finetune_storage.s3 import Storage
from finetune_trainer.reporting.card import CARD, REPORT, card, read_license
from finetune_trainer.reporting.page import page
from finetune_trainer.reporting.report_data import ReportData


def write_card(data: ReportData, folder: Path) -> None:
    """Into the model's folder, before its files are listed."""
    try:
        (folder / CARD).write_text(card(data), encoding="utf-8")
    except Exception:  # what went wrong is in the log, and the model is published
        print(f"warning: no {CARD}:\n{traceback.format_exc()}", flush=True)


def write_page(data: ReportData, root: S3Uri, storage: Storage) -> None:
    """Beside results.csv; root: of the run."""
    try:
        storage.write_bytes(root.child(REPORT), page(data).encode())
    except Exception:
        print(f"warning: no {REPORT}:\n{traceback.format_exc()}", flush=True)


def find_license(base: Path) -> str | None:
    """As the base model's own card names it."""
    path = base / CARD
    return read_license(path.read_text("utf-8", "replace")) if path.is_file() else None
