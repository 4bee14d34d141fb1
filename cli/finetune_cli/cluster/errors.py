"""What the API server refuses, and what it is when it does not answer, in sentences."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Self

from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import program
from finetune_data.read.findings import detail

MISSING_KIND = "could not find the requested resource"

ANONYMOUS = "system:anonymous"  # who comes without a login


class ApiError(CommandError):
    """The API server refused. status: HTTP's; answer: its Status object, or {}."""

    def __init__(self, message: str, hint: str, status: int, answer: dict[str, Any]) -> None:
        super().__init__(message, hint)
        self.status = status
        self.answer = answer

    @classmethod
    def of(cls, status: int, data: bytes, host: str, namespace: str) -> Self:
        answer = _parse(data)
        message, hint = _sentence(status, answer, host, namespace)
        return cls(message, hint, status, answer)

    @property
    def is_missing(self) -> bool:
        """The object is not there; the kind is."""
        return self.status == HTTPStatus.NOT_FOUND and not self.is_missing_kind

    @property
    def is_missing_kind(self) -> bool:
        """The cluster has never heard of this kind."""
        said = str(self.answer.get("message", ""))
        return self.status == HTTPStatus.NOT_FOUND and (MISSING_KIND in said or not self.answer)

    @property
    def is_passing(self) -> bool:
        """The same request may succeed a moment later."""
        return self.status >= 500 or self.status == HTTPStatus.TOO_MANY_REQUESTS


class UnreachableError(CommandError):
    """Nothing answers, or the connection broke; `why` is a few words."""

    def __init__(self, message: str, hint: str, why: str) -> None:
        super().__init__(message, hint)
        self.why = why

    @classmethod
    def of(cls, host: str, error: BaseException | str) -> Self:
        why, hint = _reason(error)
        return cls(f"the API server at {host} can't be reached: {why}", hint, why)


def _sentence(status: int, answer: dict[str, Any], host: str, namespace: str) -> tuple[str, str]:
    said = str(answer.get("message") or f"HTTP {status}")
    details = answer.get("details") or {}
    name = details.get("name")
    is_nobody = status == HTTPStatus.FORBIDDEN and ANONYMOUS in said
    if status == HTTPStatus.UNAUTHORIZED or is_nobody:
        return (
            f"the API server at {host} does not accept this login",
            "log in again as your cluster wants it, or choose another --context",
        )
    if status == HTTPStatus.FORBIDDEN:
        return (
            said,
            "ask for the chart's Role finetune-user or finetune-owner in this namespace; "
            f"`{program()} doctor` lists what you may do",
        )
    if status == HTTPStatus.NOT_FOUND and (MISSING_KIND in said or not answer):
        return (
            "this cluster knows no FineTunes: the operator's CRDs are not installed",
            f"helm install finetune charts/finetune-operator; `{program()} doctor` checks it",
        )
    if status == HTTPStatus.NOT_FOUND and details.get("kind") == "finetunes":
        return (
            f"there is no fine-tune {name!r} in namespace {namespace!r}",
            f"`{program()} list -A` shows those of all namespaces",
        )
    if status == HTTPStatus.NOT_FOUND and details.get("kind") == "namespaces":
        return (
            f"there is no namespace {namespace!r}",
            namespace_hint(namespace),
        )
    if status == HTTPStatus.CONFLICT and answer.get("reason") == "AlreadyExists":
        return (
            f"{name!r} exists already in namespace {namespace!r}",
            "choose another name, or leave the name out and get a new one",
        )
    causes = [cause for cause in details.get("causes") or [] if cause.get("message")]
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and causes:
        return "; ".join(_cause(cause) for cause in causes), "correct the field and try again"
    return said, ""


def namespace_hint(namespace: str) -> str:
    """What to do about a namespace that is not there."""
    return f"choose another with -n, or create it: kubectl create namespace {namespace}"


def _cause(cause: dict[str, Any]) -> str:
    field = cause.get("field", "")
    message = str(cause["message"]).removeprefix("Invalid value: ")
    return message if field in {"", "<nil>"} else f"{field}: {message}"


def _reason(error: BaseException | str) -> tuple[str, str]:
    """A few words, and the next step."""
    text = error if isinstance(error, str) else f"{type(error).__name__} {error}"
    network = "check the network or VPN, and that the context is the right one"
    for mark, why, hint in (
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted", "check the kubeconfig"),
        ("CertificateError", "its certificate is for another host", "check the kubeconfig"),
        ("SSL", "the TLS connection failed", "check the kubeconfig's server address"),
        ("onnection refused", "connection refused", network),
        ("NameResolution", "its name is unknown here", network),
        ("ConnectTimeout", "no answer in time", network),
        ("timed out", "no answer in time", network),
        ("nreachable", "the network is unreachable", network),
        ("reset by peer", "the connection broke", network),
        ("Protocol", "the connection broke", network),
        ("IncompleteRead", "the connection broke", network),
    ):
        if mark in text:
            return why, hint
    return detail(error) if isinstance(error, BaseException) else text[:200], network


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}
