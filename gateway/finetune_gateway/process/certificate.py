"""The certificate with which the gateway serves TLS, read again when its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

CHECK_SECONDS = 10.0  # certificates are renewed days before they expire

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate and its key. New connections get the current one."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ValueError with the files if they are no certificate and its key."""
        self._certificate = certificate
        self._key = key
        self._version = self._read_version()
        self.context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    async def watch(self) -> None:
        """Read the files again whenever they change, until the task is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.refresh()

    def refresh(self) -> bool:
        """Use the files if they have changed. Returns whether the certificate is a new one.

        Files that do not fit together, as in the middle of a change, leave the former certificate.
        """
        version = self._read_version()
        if version == self._version:
            return False
        try:
            # In a context of its own first: a failure would break the one in use.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except ValueError as error:
            logger.error("the former certificate stays in use: %s", error)
            return False
        self._version = version
        logger.info("the certificate in %s is in use", self._certificate)
        return True

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"{self._certificate} and {self._key} are no certificate with its key: {error}"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _read_version(self) -> list[tuple[int, int, int]]:
        """A value that differs after each change of the files."""
        found = []
        for path in (self._certificate, self._key):
            try:
                info = path.stat()
            except OSError:
                continue
            found.append((info.st_ino, info.st_mtime_ns, info.st_size))
        return found
