"""Error messages and hints for responses of the API server, and for a missing response."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Self

from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import program_name
from finetune_data.read.findings import detail

MISSING_KIND = "could not find the requested resource"

ANONYMOUS = "system:anonymous"  # the user of a request without credentials


class ApiError(CommandError):
    """The API server rejected a request. status: of HTTP; answer: its Status object, or {}."""

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
        """Whether the object is missing although its kind exists."""
        return self.status == HTTPStatus.NOT_FOUND and not self.is_missing_kind

    @property
    def is_missing_kind(self) -> bool:
        """Whether the cluster does not have this kind."""
        said = str(self.answer.get("message", ""))
        return self.status == HTTPStatus.NOT_FOUND and (MISSING_KIND in said or not self.answer)

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= 500 or self.status == HTTPStatus.TOO_MANY_REQUESTS


class UnreachableError(CommandError):
    """There is no response, or the connection broke. reason: a few words."""

    def __init__(self, message: str, hint: str, reason: str) -> None:
        super().__init__(message, hint)
        self.reason = reason

    @classmethod
    def of(cls, host: str, error: BaseException | str) -> Self:
        reason, hint = _reason(error)
        return cls(f"cannot reach the API server at {host}: {reason}", hint, reason)


def _sentence(status: int, answer: dict[str, Any], host: str, namespace: str) -> tuple[str, str]:
    said = str(answer.get("message") or f"HTTP {status}")
    details = answer.get("details") or {}
    name = details.get("name")
    is_anonymous = status == HTTPStatus.FORBIDDEN and ANONYMOUS in said
    if status == HTTPStatus.UNAUTHORIZED or is_anonymous:
        return (
            f"the API server at {host} does not accept this login",
            "log in to your cluster again, or choose another --context",
        )
    if status == HTTPStatus.FORBIDDEN:
        return (
            said,
            "ask an administrator for the chart's Role finetune-user or finetune-owner in this "
            f"namespace; `{program_name()} doctor` lists your permissions",
        )
    if status == HTTPStatus.NOT_FOUND and (MISSING_KIND in said or not answer):
        return (
            "this cluster has no FineTunes: the operator's CRDs are not installed",
            "install them with `helm install finetune charts/finetune-operator`; "
            f"`{program_name()} doctor` checks the installation",
        )
    if status == HTTPStatus.NOT_FOUND and details.get("kind") == "finetunes":
        return (
            f"there is no fine-tune {name!r} in namespace {namespace!r}",
            f"`{program_name()} list -A` lists the fine-tunes of all namespaces",
        )
    if status == HTTPStatus.NOT_FOUND and details.get("kind") == "namespaces":
        return (
            f"there is no namespace {namespace!r}",
            namespace_hint(namespace),
        )
    if status == HTTPStatus.CONFLICT and answer.get("reason") == "AlreadyExists":
        return (
            f"{name!r} already exists in namespace {namespace!r}",
            "choose another name, or omit the name to get a generated one",
        )
    causes = [cause for cause in details.get("causes") or [] if cause.get("message")]
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and causes:
        return "; ".join(_cause(cause) for cause in causes), "correct the field and try again"
    return said, ""


def namespace_hint(namespace: str) -> str:
    """The hint for a missing namespace."""
    return f"choose another with -n, or create it: kubectl create namespace {namespace}"


def _cause(cause: dict[str, Any]) -> str:
    field = cause.get("field", "")
    message = str(cause["message"]).removeprefix("Invalid value: ")
    return message if field in {"", "<nil>"} else f"{field}: {message}"


def _reason(error: BaseException | str) -> tuple[str, str]:
    """(a few words, the next step)"""
    text = error if isinstance(error, str) else f"{type(error).__name__} {error}"
    network = "check your network or VPN, and the context of your kubeconfig"
    proxy = "check HTTPS_PROXY, or add the host of the API server to NO_PROXY"
    for mark, reason, hint in (
        ("Tunnel connection failed", "the proxy refuses the connection", proxy),
        ("ProxyError", "the proxy cannot be reached", proxy),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted", "check the kubeconfig"),
        ("CertificateError", "its certificate is for another host", "check the kubeconfig"),
        ("SSL", "the TLS connection failed", "check the kubeconfig's server address"),
        ("onnection refused", "connection refused", network),
        ("NameResolution", "its host name cannot be resolved", network),
        ("ConnectTimeout", "no response in time", network),
        ("timed out", "no response in time", network),
        ("nreachable", "the network is unreachable", network),
        ("reset by peer", "the connection broke", network),
        ("Protocol", "the connection broke", network),
        ("IncompleteRead", "the connection broke", network),
    ):
        if mark in text:
            return reason, hint
    return detail(error) if isinstance(error, BaseException) else text[:200], network


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}
