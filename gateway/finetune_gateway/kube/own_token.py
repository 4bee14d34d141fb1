"""The gateway's own token, with which it impersonates the ServiceAccounts of API keys."""

from __future__ import annotations

import re
from pathlib import Path

from finetune_gateway.kube_errors import KubeError

TOKEN_BYTES = 2**16
_TOKEN = re.compile(r"[!-~]+")


class OwnToken:
    """A token that is constant or in a file, which the kubelet renews every hour."""

    def __init__(self, token: str = "", file: Path | None = None) -> None:
        """file: takes precedence."""
        self._token = token
        self._file = file
        self._version: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"OwnToken(file={self._file})"

    def read(self) -> str:
        """The current token. Raises KubeError (status 0) if there is none."""
        if self._file is not None:
            self._refresh(self._file)
        if _TOKEN.fullmatch(self._token) is None:
            where = f" in {self._file}" if self._file else ""
            raise KubeError(0, f"The gateway has no valid token of its own{where}.")
        return self._token

    def _refresh(self, file: Path) -> None:
        """Read the file again if it has changed. While it cannot be read, keep the last token."""
        try:
            found = file.stat()
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if version != self._version:
                with file.open("rb") as opened:
                    self._token = opened.read(TOKEN_BYTES).decode("ascii", "replace").strip()
                self._version = version
        except OSError:
            return
