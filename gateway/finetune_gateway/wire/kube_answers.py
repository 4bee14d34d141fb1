"""The refusals of the API server in the words of OpenAI's API.

The forms of the messages are those of Kubernetes 1.36. They only select the answer: an unknown one
is shown with the same words.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from finetune_gateway.kube_errors import KubeError
from finetune_gateway.problems import forbidden, unauthenticated
from finetune_gateway.wire.request_fields import RequestFields
from finetune_web.problems import Kind, Problem, invalid, missing, unavailable

# With a verb after it where the rights of impersonation can be constrained (Kubernetes 1.36)
_IMPERSONATION = re.compile(r'is forbidden: User "[^"]*" cannot impersonate\b')
_PERMISSION = re.compile(r'is forbidden: User "[^"]*" cannot ')
_QUOTA = re.compile(r"is forbidden: (exceeded|failed) quota\b")
_QUOTA_UNKNOWN = re.compile(r"is forbidden: status unknown for quota\b")
_POLICY = re.compile(r"AdmissionPolicy '[^']*' .*denied|^admission webhook \"[^\"]*\" denied")
_WEBHOOK_FAILED = re.compile(r"failed calling webhook ")
_PREFIX = re.compile(r'^(?:\S+ "[^"]*" is (?:forbidden|invalid): |Internal error occurred: )')
_UNKNOWN_FIELD = re.compile(r'unknown field "(?:spec\.)?([^"]*)"')
_BODY = re.compile(r"^\S+ in body ")  # of a rule of the schema, after the name of the field
_TYPE = re.compile(r'^must be of type (\w+): "(\w+)"$')
_VALUE = "Invalid value: "
_REQUIRED = "Required value"
_UNCHECKED = "some validation rules were not checked"
_WHOLE = frozenset({"", "<nil>", "spec"})  # the field of a rule that spans several
SHOWN_CHARACTERS = 600
MOST_SECONDS = 60  # of Retry-After: the new clients give up beyond 120

# The role of the chart that has the right: owners delete, and change models.
OWNER, USER = "finetune-owner", "finetune-user"
NOUNS = {"finetunes": "fine-tunes", "models": "models"}


@dataclass(frozen=True)
class Asked:
    """A request to the API server, as a message names it."""

    verb: str  # of Kubernetes, such as create
    plural: Literal["finetunes", "models"]
    namespace: str
    shown: str = ""  # the id of the object as the client has it; empty: none
    account: str = ""  # of the caller's key
    fields: RequestFields | None = None  # of the request that creates


def explain(error: KubeError, asked: Asked) -> Problem:
    """The answer to a client whose request the API server has refused, or not answered."""
    said = error.message.strip()
    if error.status == 401:
        return unauthenticated(
            "Kubernetes does not accept this API key: it is not a key of this gateway, or it is "
            "a token that is not valid or has expired. Get a new one."
        )
    if _WEBHOOK_FAILED.search(said) or _QUOTA_UNKNOWN.search(said):
        return unavailable(f"The API server cannot check the request yet: {_cut(said)}")
    if _POLICY.search(said):
        return forbidden(f"A policy of the cluster refuses the request: {_cut(said)}")
    if error.status == 403:
        return _explain_forbidden(said, asked)
    if error.status == 404:
        return _explain_missing(asked)
    if error.status in {400, 422}:
        return _explain_invalid(error, asked.fields or RequestFields({}))
    if 400 <= error.status < 500 and error.status not in {408, 409, 410, 429}:
        return invalid(f"The API server refuses the request: {_cut(said)}", code="refused")
    seconds = min(max(error.retry_after or 5, 1), MOST_SECONDS)
    if error.status == 0:
        return unavailable(f"{_cut(said) or 'The API server does not answer'}. Try again.", seconds)
    what = "has too many requests" if error.status == 429 else f"answers {error.status}"
    return unavailable(f"The Kubernetes API server {what}. Try again.", seconds)


def lacks_permission(asked: Asked) -> Problem:
    """403: the caller's roles have no such right."""
    noun = NOUNS[asked.plural]
    is_owners = asked.verb == "delete" or (asked.plural == "models" and asked.verb == "patch")
    role, who = (OWNER, "an owner") if is_owners else (USER, "a user")
    does = {"get": "read", "watch": "follow", "patch": "change"}.get(asked.verb, asked.verb)
    key = f" The account {asked.account} of this key is not." if asked.account else ""
    return forbidden(f"You must be {who} (role {role}) to {does} {noun} in {asked.namespace}.{key}")


def no_such(asked: Asked) -> Problem:
    """404: the object does not exist, or no object can have this id."""
    shown = asked.shown[:200]
    if asked.plural == "models":
        return missing(
            f"The model {shown!r} does not exist in {asked.namespace}.", "model", "model_not_found"
        )
    return missing(
        f"There is no fine-tune {shown!r} in {asked.namespace}.",
        "fine_tune_id",
        "fine_tune_not_found",
    )


def _explain_forbidden(said: str, asked: Asked) -> Problem:
    if _IMPERSONATION.search(said):
        return forbidden(
            f"The gateway may not act as the account {asked.account or 'of this key'} in "
            f"{asked.namespace}. Add the account to gateway.keys.serviceAccounts in the values of "
            "the chart, or use a key of another account."
        )
    if _QUOTA.search(said):
        return Problem(
            429,
            f"The quota of {asked.namespace} does not allow another object: {_cut(said)}. Delete "
            "objects that you no longer need, or ask an administrator for a larger quota.",
            kind=Kind.QUOTA,
            code="insufficient_quota",
            should_retry=False,
        )
    if _PERMISSION.search(said):
        return lacks_permission(asked)
    return forbidden(f"The API server refuses the request: {_cut(said)}")


def _explain_missing(asked: Asked) -> Problem:
    if asked.shown:
        return no_such(asked)
    return Problem(
        503,
        f"The namespace {asked.namespace} does not exist, or the cluster has no "
        f"{asked.plural}.finetune.dev: an administrator must install the chart.",
        kind=Kind.SERVER,
        code="not_installed",
        should_retry=False,
    )


def _explain_invalid(error: KubeError, fields: RequestFields) -> Problem:
    causes = [cause for cause in error.causes if _UNCHECKED not in cause[1]]
    if causes:
        return _explain_cause(*causes[0], fields)
    unknown = _UNKNOWN_FIELD.search(error.message)
    if unknown:
        param = fields.param(unknown[1])
        return invalid(
            f"{param} is not a field of a FineTune. Correct its name, or remove it.",
            param,
            "unknown_field",
        )
    return invalid(f"The API server refuses the request: {_cut(error.message)}", code="refused")


def _explain_cause(path: str, text: str, fields: RequestFields) -> Problem:
    value, rule = _split_value(text)
    if path in _WHOLE:
        return _invalid_value(fields.rewrite(rule), fields.find_param(rule))
    param = fields.param(path.removeprefix("spec."))
    if rule.startswith(_REQUIRED):
        return _invalid_value(f"{param} is required", param)
    if value is None:
        return _invalid_value(f"{param}: {rule[:1].lower()}{rule[1:]}", param)
    rule = _BODY.sub("", rule)
    if found := _TYPE.match(rule):
        sentence = f"{param} must be of type {found[1]}, but it is of type {found[2]}"
        return _invalid_value(sentence, param)
    if rule.startswith(("must ", "should ")):
        return _invalid_value(f"{param} {rule}, but it is {value}", param)
    return _invalid_value(fields.rewrite(rule), param)


def _invalid_value(sentence: str, param: str | None) -> Problem:
    return invalid(f"{sentence[:SHOWN_CHARACTERS].rstrip('.')}.", param, "invalid_value")


def _split_value(text: str) -> tuple[str | None, str]:
    """A message `Invalid value: VALUE: RULE` as its value, in JSON, and its rule."""
    if not text.startswith(_VALUE):
        return None, text
    rest = text.removeprefix(_VALUE)
    try:
        _, end = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return None, rest
    if not rest[end:].startswith(": "):
        return None, rest
    return rest[: min(end, 100)], rest[end + 2 :]


def _cut(said: str) -> str:
    """The API server's words without what the sentence says already, and without the last dot."""
    return _PREFIX.sub("", said.strip(), count=1)[:SHOWN_CHARACTERS].rstrip(".")
