"""Messages of `status.serving` of a Model, and of the Events with it."""

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason, ServingReason
from finetune_operator.messages.status import StatusMessage
from finetune_operator.messages.text import MESSAGE_CHARACTERS
from finetune_operator.messages.text import count as _count

TRIED_AGAIN = "Kubernetes tries again until it works"


def pods_answer(ready: int, pods: int, others: str | None) -> StatusMessage:
    """others: why fewer pods than wanted answer."""
    verb = "answers" if ready == 1 else "answer"
    text = f"{ready} of {_count(pods, 'pod')} {verb} requests"
    return _message(ServingReason.READY, text + (f"; {others}" if others else ""))


def pods_load(pods: int) -> StatusMessage:
    verb = "is" if pods == 1 else "are"
    text = f"{_count(pods, 'pod')} {verb} loading the model; it is ready after a test completion"
    return _message(ServingReason.LOADING, text)


def sleeps(idle_seconds: int, failure: str | None) -> StatusMessage:
    """failure: why the model did not start before it fell asleep."""
    text = (
        f"no request came for {_span(idle_seconds)}; the next request through the gateway wakes "
        "the model"
    )
    return _message(
        ServingReason.ASLEEP, text + (f". The last start failed: {failure}" if failure else "")
    )


def download_failed(error: ErrorInfo) -> StatusMessage:
    hint = f"; {error.hint}" if error.hint else ""
    return _message(
        error.code, f"the model cannot be downloaded: {error.message}{hint}; {TRIED_AGAIN}"
    )


def download_crashed(exit_code: int, tail: str) -> StatusMessage:
    cause = f": {tail}" if tail else ""
    text = f"the download of the model ended with exit code {exit_code}{cause}; {TRIED_AGAIN}"
    return _message(ServingReason.SERVER_CRASHED, text)


def server_crashed(exit_code: int, tail: str) -> StatusMessage:
    """tail: the last line of the log."""
    cause = f": {tail}" if tail else ""
    text = f"the server ended with exit code {exit_code}{cause}; {TRIED_AGAIN}"
    return _message(ServingReason.SERVER_CRASHED, text)


def server_out_of_memory(limit: str | None) -> StatusMessage:
    """limit: of the container, a quantity of Kubernetes."""
    at = f", at its limit of {limit}" if limit else ""
    text = (
        f"the server used more memory than it may{at}; raise spec.serve.resources.memory of the "
        f"Model, or the memory of the runtime; {TRIED_AGAIN}"
    )
    return _message(Reason.OUT_OF_MEMORY, text)


def waits_in_vain(reason: str, cause: str) -> StatusMessage:
    """cause: why the pods do not start."""
    return _message(reason, f"{cause}; {TRIED_AGAIN}")


def unknown_serving_runtime(name: str, known: str) -> StatusMessage:
    """known: the names of the runtimes."""
    text = (
        f"runtime {name!r} is unknown; set spec.serve.runtime to one of the chart value "
        f"serving.runtimes: {known}"
    )
    return _message(Reason.UNKNOWN_RUNTIME, text)


def serving_name_taken(found: str) -> StatusMessage:
    """found: kind and name of an object of another owner."""
    text = f"{found} has a name that the served model needs; delete it or rename it"
    return _message(Reason.FOREIGN_OBJECT, text)


def serving_refused(reason: str, cause: str) -> StatusMessage:
    """cause: what the API server refuses, and why."""
    return _message(reason, f"{cause}; the operator tries again")


STOPPED = StatusMessage(ServingReason.STOPPED, "spec.serve was removed, and the server with it")


def _span(seconds: int) -> str:
    if seconds % 3600 == 0:
        return _count(seconds // 3600, "hour")
    if seconds % 60 == 0:
        return _count(seconds // 60, "minute")
    return _count(seconds, "second")


def _message(reason: str, text: str) -> StatusMessage:
    return StatusMessage(reason, text[:MESSAGE_CHARACTERS])
