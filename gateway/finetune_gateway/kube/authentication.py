"""From the header Authorization to the caller.

Keys of the gateway are checked here. Tokens are not: each request to the API server carries them,
and the API server decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from finetune_api.api_keys import PREFIX, is_key
from finetune_gateway.kube.api_session import IMPERSONATE
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.keys import KeyRing
from finetune_gateway.problems import unauthenticated
from finetune_web.problems import Problem

TOKEN_BYTES = 16 * 2**10
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750; a JWT has this form, too
_HELP = (
    "Send the header `Authorization: Bearer KEY`, where KEY is an API key of this gateway "
    "(`finetune keys create`) or a token of Kubernetes."
)


def _now() -> datetime:
    return datetime.now(UTC)


class Authentication:
    """Finds the caller of a request."""

    def __init__(
        self, namespace: str, keys: KeyRing | None, now: Callable[[], datetime] = _now
    ) -> None:
        """namespace: of the ServiceAccounts. keys: None if the gateway has no API keys."""
        self._namespace = namespace
        self._keys = keys
        self._now = now

    def __call__(self, header: str) -> Caller:
        """The caller of a request with this header; empty: it has none. Raises Problem (401)."""
        scheme, _, credential = header.strip().partition(" ")
        credential = credential.strip()
        if not header.strip() or (not credential and scheme.lower() == "bearer"):
            raise unauthenticated(f"You did not provide an API key. {_HELP}", "missing_api_key")
        if scheme.lower() != "bearer":
            raise unauthenticated(f"The header Authorization has no Bearer token. {_HELP}")
        if len(credential) > TOKEN_BYTES or _TOKEN.fullmatch(credential) is None:
            raise unauthenticated(f"The API key has a form that no key has. {_HELP}")
        if credential.startswith(PREFIX):
            return self._caller_of_key(credential)
        if credential.startswith("sk-"):
            raise _incorrect(
                "OpenAI's keys are not valid here. Ask an administrator of this gateway for a key"
            )
        return Caller({"Authorization": f"Bearer {credential}"})

    def _caller_of_key(self, key: str) -> Caller:
        record = self._keys.find(key) if self._keys is not None and is_key(key) else None
        if record is None:
            raise _incorrect(
                "No such key exists, or it has been revoked. Ask an administrator for a new one"
            )
        if record.is_expired(self._now()):
            assert record.expires is not None
            raise unauthenticated(
                f"The API key of {record.account} expired at {record.expires:%Y-%m-%d %H:%M} UTC. "
                "Ask an administrator for a new one (`finetune keys create`)."
            )
        user = f"system:serviceaccount:{self._namespace}:{record.account}"
        return Caller({IMPERSONATE: user}, account=record.account)


def _incorrect(cause: str) -> Problem:
    """A message with the first three characters of a key, which are the same for all keys."""
    message = f"Incorrect API key provided: sk-... {cause} (`finetune keys create`)."
    return unauthenticated(message)
