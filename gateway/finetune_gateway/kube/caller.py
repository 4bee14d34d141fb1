"""The sender of a request, and the headers with which the API server knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Itself:
    """The gateway as the sender of a request, with its own token: only for Leases.

    It is no `Caller`, so that nothing that is done for a caller can be done as the gateway.
    """


@dataclass(frozen=True)
class Caller:
    """The sender of a request, as which the gateway asks the API server.

    The API server decides whether the credential is valid and what it allows.
    """

    # Either Authorization with the caller's own token, or Impersonate-User. `api_session` adds the
    # gateway's token to the latter, for each request, because that token is renewed every hour.
    headers: Mapping[str, str] = field(repr=False)
    # For messages: the ServiceAccount of a key, or empty for a token, whose user is not known here.
    account: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of the credential: a key for caches and for repeated requests.

        The keys of one account have the same fingerprint.
        """
        text = self.account or self.headers.get("Authorization", "")
        return hashlib.sha256(text.encode()).hexdigest()
