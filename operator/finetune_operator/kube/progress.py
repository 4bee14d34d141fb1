"""Reads the progress of a training from its pod, whose answer is not trusted."""

import ipaddress
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp

from finetune_api import names
from finetune_api.outcome import ProgressReport
from finetune_api.wire import parse_json
from finetune_operator.core.observed import Job

TIMEOUT_SECONDS = 3.0
BYTES_AT_MOST = 65_536  # a report of 50 epochs has about 12,000
STATUSES = {200, 503}  # training, and starting
SLOW_SECONDS = 30.0  # a pod that did not answer in time is not asked again for this long
SLOW_PODS_AT_MOST = 10_000

logger = logging.getLogger(__name__)


class ProgressReader:
    """One session for all pods. Use it as an asynchronous context manager."""

    def __init__(
        self,
        port: int = names.PORT_PROGRESS,
        timeout: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port = port
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._slow: dict[str, float] = {}  # address -> when it may be asked again

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,  # a small answer must stay small
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, job: Job) -> ProgressReport | None:
        """Return the report of the Job's rank 0; None if it has none that can be used.

        A report of another attempt is not used: the address may belong to another pod by now.
        """
        pod = job.rank0
        if pod is None or pod.phase != "Running" or not _is_of_a_pod(pod.ip):
            return None
        assert pod.ip is not None
        if self._slow.get(pod.ip, 0.0) > self._clock():
            return None
        self._slow.pop(pod.ip, None)
        try:
            report = ProgressReport.model_validate(parse_json(await self._fetch(pod.ip)))
        except TimeoutError:
            logger.debug("the progress of %s takes too long", pod.name)
            self._avoid(pod.ip)
            return None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            logger.debug("the progress of %s cannot be read: %s", pod.name, error)
            return None
        return report if report.attempt == job.attempt else None

    async def _fetch(self, ip: str) -> bytes:
        """Return the whole answer. Raise ValueError for one that no trainer sends."""
        assert self._session is not None
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{self._port}/progress"
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status not in STATUSES:
                raise ValueError(f"the status of the answer is {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BYTES_AT_MOST:
                    response.close()
                    raise ValueError(f"the answer has more than {BYTES_AT_MOST} bytes")
        return bytes(body)

    def _avoid(self, ip: str) -> None:
        """Bound the time that workers wait for pods that a firewall or a fault hides."""
        if len(self._slow) >= SLOW_PODS_AT_MOST:
            self._slow.clear()
        self._slow[ip] = self._clock() + SLOW_SECONDS


def _is_of_a_pod(ip: str | None) -> bool:
    """Whether this is an address that a pod can have, and not a name or a metadata service."""
    try:
        address = ipaddress.ip_address(ip or "")
    except ValueError:
        return False
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)
