"""Events. The first words are those of OpenAI's fine-tunes API where it has such an event."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics


@dataclass(frozen=True)
class Event:
    """An Event of a FineTune. It is recorded once for each (reason, attempt, key)."""

    reason: str
    message: str
    level: Literal["info", "warning", "error"] = "info"
    attempt: int | None = None
    key: str | None = None


STARTED = Event("Started", "Fine-tune started")
SUCCEEDED = Event("Succeeded", "Fine-tune succeeded")
CANCELLED = Event(Reason.CANCELLED, "Fine-tune cancelled")
EPOCH_COMPLETED = "EpochCompleted"


def created(name: str) -> Event:
    return Event("Created", f"Created fine-tune: {name}")


def advice(sentence: str) -> Event:
    """sentence: on the data or the plan, written by the prepare Job."""
    key = sha256(sentence[:1024].encode("utf-8", "replace")).hexdigest()[:16]
    return Event("Advice", sentence, "warning", key=key)


def enqueued(queue: str) -> Event:
    return Event("Enqueued", f"Fine-tune enqueued in queue {queue}", key=queue)


def queue_position(attempt: int, position: int) -> Event:
    return Event("Enqueued", f"Fine-tune enqueued. Queue number: {position}", attempt=attempt)


def suspended(attempt: int | None) -> Event:
    """attempt: the one that the suspension ended, if any."""
    return Event("Suspended", "Fine-tune suspended", attempt=attempt)


def resumed(attempt: int) -> Event:
    """attempt: the one that starts."""
    return Event("Resumed", "Fine-tune resumed", attempt=attempt)


def pods_released(attempt: int, cause: str) -> Event:
    """cause: the end of the attempt in words."""
    message = f"Released the pods of attempt {attempt}: {cause}"
    return Event(Reason.GANG_RELEASED, message, "warning", attempt)


def base_model_loaded(base: str) -> Event:
    return Event("BaseModelLoaded", f"Base model loaded: {base}")


def restarted(attempt: int, step: int | None, cause: str) -> Event:
    """step: of the checkpoint; None for an attempt that ended before it trained."""
    where = f", attempt {attempt}" if step is None else f" from step {step}"
    return Event("Restarted", f"Fine-tune restarted{where}: {cause}", attempt=attempt)


def base_model_measured(before: EpochMetrics) -> Event:
    """before: metrics of the fine-tuned model that the training continues from."""
    return Event("BaseModelMeasured", f"Measured before training: {format_metrics(before)}")


def epoch_completed(epoch: EpochMetrics, epochs: int) -> Event:
    metrics = f" ({found})" if (found := format_metrics(epoch)) else ""
    message = f"Completed epoch {epoch.epoch}/{epochs}{metrics}"
    return Event(EPOCH_COMPLETED, message, key=str(epoch.epoch))


def model_uploaded(model: str) -> Event:
    return Event("ModelUploaded", f"Uploaded model: {model}")


def adopted(model: str, uid: str, uri: str) -> Event:
    """uid: of the FineTune that trained the model. uri: of its files."""
    message = (
        f"Adopted model {model} of the former fine-tune with the UID {uid} instead of training: "
        f"{uri}"
    )
    return Event(Reason.ADOPTED, message)


def not_adopted(model: str) -> Event:
    """model: the name of the Model that is in the way."""
    message = (
        f"The model of a former fine-tune with this name is not adopted, because Model {model} has "
        "its name, and is being deleted or describes other files"
    )
    return Event("Advice", message, "warning", key=f"adoption-{model}"[:128])


def results_uploaded(uri: str) -> Event:
    return Event("ResultsUploaded", f"Uploaded result file: {uri}")


def diverged(first_loss: float, last_loss: float) -> Event:
    message = (
        f"Training diverged: the loss ended at {last_loss:.4f} after starting at {first_loss:.4f}. "
        "Train again with a lower learning rate, for example one tenth"
    )
    return Event("Diverged", message, "warning")


def status_refused(cause: str) -> Event:
    """cause: the words of the API server. This Event is only in the cluster, not in the status."""
    message = f"The status of the fine-tune cannot be written: {cause}"
    return Event("StatusRefused", message, "error")


def failed(error: ErrorInfo) -> Event:
    return Event(error.code, f"Fine-tune failed: {error.message}", "error", key="failed")


PREPARE_KEY, LOOKUP_KEY = "prepare-", "lookup-"  # begin the keys of lost results


def checked_again(uid: str, error: ErrorInfo) -> Event:
    """uid: of the prepare Job whose result is lost."""
    message = f"The data is checked again: {error.message}"
    return Event(Reason.RESULT_LOST, message, "warning", key=PREPARE_KEY + uid)


def looked_up_again(uid: str, error: ErrorInfo) -> Event:
    """uid: of the lookup Job whose result is lost."""
    message = f"The published model is looked up again: {error.message}"
    return Event(Reason.RESULT_LOST, message, "warning", key=LOOKUP_KEY + uid)


def format_metrics(epoch: EpochMetrics) -> str:
    """The metrics that were measured; an empty string if none was."""
    values = {
        "training loss": epoch.training_loss,
        "validation loss": epoch.validation_loss,
        "validation sequence accuracy": epoch.validation_sequence_accuracy,
    }
    found = [f"{name} {value:.4f}" for name, value in values.items() if value is not None]
    if epoch.learning_rate is not None:
        found.append(f"learning rate {epoch.learning_rate:.3g}")
    return ", ".join(found)
