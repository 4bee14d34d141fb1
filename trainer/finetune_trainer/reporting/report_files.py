"""Write report.html and the model card; a report that fails never costs a trained model."""

import traceback
from pathlib import Path

from finetune_api.uris import S3Uri
from finetune_storage.s3 import Storage
from finetune_trainer.reporting.card import CARD, REPORT, card, read_license
from finetune_trainer.reporting.page import page
from finetune_trainer.reporting.report_data import ReportData


def write_card(data: ReportData, folder: Path) -> None:
    """Write the model card into the model's folder, before its files are listed."""
    try:
        (folder / CARD).write_text(card(data), encoding="utf-8")
    except Exception:  # the log has the traceback, and the model is published without a card
        print(f"warning: could not write {CARD}:\n{traceback.format_exc()}", flush=True)


def write_page(data: ReportData, root: S3Uri, storage: Storage) -> None:
    """Write report.html into the run's folder `root`, next to results.csv."""
    try:
        storage.write_bytes(root.child(REPORT), page(data).encode())
    except Exception:
        print(f"warning: could not write {REPORT}:\n{traceback.format_exc()}", flush=True)


def find_license(base: Path) -> str | None:
    """Return the license that the base model's own card names."""
    path = base / CARD
    return read_license(path.read_text("utf-8", "replace")) if path.is_file() else None
