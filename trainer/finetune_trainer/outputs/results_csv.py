"""results.csv: one row for each optimizer step, uploaded while the training runs."""

import threading
from collections.abc import Sequence

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.uris import S3Uri
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage
from finetune_trainer.step.loss import Totals

COLUMNS = [
    "step",
    "elapsed_tokens",
    "elapsed_examples",
    "training_loss",
    "training_sequence_accuracy",
    "training_token_accuracy",
]
VALIDATION_COLUMNS = [
    "validation_loss",
    "validation_sequence_accuracy",
    "validation_token_accuracy",
]
# None of them depends on the clock: a repeated run writes the same bytes.
OWN_COLUMNS = ["training_completion_loss", "learning_rate", "gradient_norm"]
OWN_VALIDATION_COLUMNS = ["validation_completion_loss"]

UPLOAD_SECONDS = 5.0


def columns(has_validation: bool, classification: Sequence[str] = ()) -> list[str]:
    """The columns of OpenAI's fine-tunes API in its order, then the additional ones."""
    if not has_validation:
        return [*COLUMNS, *OWN_COLUMNS]
    measured = [*VALIDATION_COLUMNS, *classification]
    return [*COLUMNS, *measured, *OWN_COLUMNS, *OWN_VALIDATION_COLUMNS]


def row(
    *,
    step: int,
    elapsed_tokens: int,
    elapsed_examples: int,
    training: Totals,
    validation: Totals | None,
    learning_rate: float,
    gradient_norm: float,
    classes: dict[str, float | None] | None = None,
) -> dict[str, float | None]:
    """The cells of one step by column; None is an empty cell."""
    cells: dict[str, float | None] = {
        "step": step,
        "elapsed_tokens": elapsed_tokens,
        "elapsed_examples": elapsed_examples,
        "training_loss": training.loss,
        "training_sequence_accuracy": training.sequence_accuracy,
        "training_token_accuracy": training.token_accuracy,
        "training_completion_loss": training.completion_loss,
        "learning_rate": learning_rate,
        "gradient_norm": gradient_norm,
    }
    if validation is not None:
        cells |= {
            "validation_loss": validation.loss,
            "validation_sequence_accuracy": validation.sequence_accuracy,
            "validation_token_accuracy": validation.token_accuracy,
            "validation_completion_loss": validation.completion_loss,
        }
    cells |= classes or {}
    return cells


def line(cells: dict[str, float | None], names: list[str]) -> str:
    """One line of CSV. Floats have nine significant digits, the precision of float32."""
    return ",".join(_cell(cells.get(name)) for name in names)


def _cell(value: float | None) -> str:
    if isinstance(value, float):
        return f"{value:.9g}"
    return "" if value is None else str(value)


def until_step(text: str, step: int) -> str:
    """The header and the rows up to `step`; later steps are trained again after a resume."""
    header, *rows = text.splitlines()
    kept = [found for found in rows if found.count(",") == header.count(",")]
    kept = [found for found in kept if int(found.split(",", 1)[0]) <= step]
    return "".join(f"{found}\n" for found in [header, *kept])


class Results:
    """results.csv of a run, written by rank 0. A thread uploads new rows every few seconds."""

    def __init__(
        self,
        uri: S3Uri,
        storage: Storage,
        names: Sequence[str],
        *,
        upload_seconds: float = UPLOAD_SECONDS,
    ) -> None:
        """names: of the columns. upload_seconds: between two uploads."""
        self._upload_seconds = upload_seconds
        self._uri = uri
        self._storage = storage
        self._columns = list(names)
        self._lines = [",".join(self._columns) + "\n"]
        self._uploaded_lines = 0
        self._lock = threading.Lock()  # an older text must not overwrite a newer one
        self._closed = threading.Event()
        self._refusal: FailureError | None = None  # of an upload by the thread
        self._thread = threading.Thread(
            target=self._upload_periodically, name="results", daemon=True
        )

    def start(self, resumed_step: int) -> None:
        """Start the uploads; after a resume, keep the rows in S3 up to `resumed_step`."""
        if resumed_step and self._storage.exists(self._uri):
            text = until_step(self._storage.read_bytes(self._uri).decode(), resumed_step)
            self._lines[1:] = text.splitlines(keepends=True)[1:]
        self._thread.start()

    def add(self, cells: dict[str, float | None]) -> None:
        """Append the row of a step. Raises FailureError if a newer attempt has started."""
        if self._refusal is not None:
            raise self._refusal
        self._lines.append(line(cells, self._columns) + "\n")

    def upload(self) -> None:
        """Upload the rows so far; returns when they are in S3."""
        with self._lock:
            lines = self._lines.copy()
            if len(lines) != self._uploaded_lines:
                self._storage.write_bytes(self._uri, "".join(lines).encode())
                self._uploaded_lines = len(lines)

    @property
    def text(self) -> str:
        """The header and all rows so far."""
        return "".join(self._lines)

    def close(self) -> None:
        """Stop the thread and upload the last rows."""
        self._closed.set()
        self.upload()

    def _upload_periodically(self) -> None:
        while not self._closed.wait(self._upload_seconds):
            try:
                self.upload()
            except StorageError as error:
                # the next upload has these rows, too; `upload` before a checkpoint raises
                if error.failure.code != Reason.S3_UNAVAILABLE:
                    print(f"warning: could not upload results.csv: {error}", flush=True)
            except FailureError as error:
                self._refusal = error
                return
