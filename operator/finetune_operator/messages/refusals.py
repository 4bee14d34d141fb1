"""Requests that the API server refuses, one function for each reason.

what: the object and the action, such as "Job ft-tone-1234-a1 cannot be created". cause: the words
of the API server. The FineTune waits and recovers by itself.
"""

from finetune_api.names import Reason
from finetune_operator.messages.status import StatusMessage
from finetune_operator.messages.text import MESSAGE_CHARACTERS

CAUSE_CHARACTERS = 1200


def cannot(verb: str, kind: str, name: str) -> str:
    """verb: create, delete, list, or get. name: empty for a list."""
    done = {"create": "created", "delete": "deleted", "list": "listed", "get": "read"}
    return f"{kind}{f' {name}' if name else ''} cannot be {done.get(verb, 'changed')}"


def model_not_registered(model: str, uri: str, what: str) -> str:
    """The training has finished, and its files are complete. what: about the Model."""
    return f"the training succeeded, and model {model} is complete at {uri}, but {what}"


def quota_exceeded(what: str, cause: str) -> StatusMessage:
    hint = "raise the quota (kubectl describe resourcequota), or delete objects that it counts"
    return _refused(Reason.QUOTA_EXCEEDED, what, cause, hint)


def policy_denied(what: str, cause: str) -> StatusMessage:
    hint = "ask the owner of this policy for an exception, or meet its conditions"
    return _refused(Reason.POLICY_DENIED, what, cause, hint)


def webhook_failed(what: str, cause: str) -> StatusMessage:
    hint = "ask an administrator to repair the service of this webhook"
    return _refused(Reason.WEBHOOK_FAILED, what, cause, hint)


def field_refused(what: str, cause: str, param: str) -> StatusMessage:
    """param: the field of the spec."""
    hint = f"correct spec.{param} in a new FineTune"
    return _refused(Reason.INVALID_SPEC, what, cause, hint)


def object_refused(what: str, cause: str) -> StatusMessage:
    """No field of the spec is the cause."""
    hint = "ask an administrator to correct the chart values, such as runtimes"
    return _refused(Reason.INVALID_SPEC, what, cause, hint)


def permission_missing(what: str, cause: str) -> StatusMessage:
    hint = "ask an administrator to give the operator the permissions of the chart"
    return _refused(Reason.FORBIDDEN, what, cause, hint)


def namespace_ends(what: str, cause: str) -> StatusMessage:
    """The namespace is being deleted."""
    hint = "use another namespace, or wait until this one is deleted and create it again"
    return _refused(Reason.FORBIDDEN, what, cause, hint)


def request_refused(what: str, cause: str) -> StatusMessage:
    """Any other answer, or none."""
    hint = "ask an administrator to check the API server; the operator tries again"
    return _refused(Reason.REQUEST_REFUSED, what, cause, hint)


def _refused(reason: str, what: str, cause: str, hint: str) -> StatusMessage:
    text = f"{what}: {cause[:CAUSE_CHARACTERS]}; {hint}"
    return StatusMessage(reason, text[:MESSAGE_CHARACTERS])
