"""The Leases that the operator creates for models: each has the time of its model's last use."""

from __future__ import annotations

from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from finetune_gateway.kube.api_session import ApiSession
from finetune_gateway.kube.caller import Itself
from finetune_gateway.kube.kube_cluster import MERGE_PATCH, OBJECT_NAME
from finetune_gateway.kube.server import Server
from finetune_gateway.kube_errors import KubeError

HOLDER = "finetune-gateway"  # outside of a pod
LEASE_BYTES = 2**18
_ITSELF = Itself()


class Leases:
    """Renews Leases of one namespace. Use it as an asynchronous context manager.

    The gateway has no other right to them: it neither creates, nor reads, nor deletes one.
    """

    def __init__(
        self, server: Server, namespace: str, *, holder: str = HOLDER, timeout_seconds: float = 10
    ) -> None:
        """holder: the name of this pod. timeout_seconds: of one request."""
        self._session = ApiSession(server, timeout_seconds)
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._holder = holder

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.__aexit__(kind, error, trace)

    async def renew(self, name: str) -> None:
        """Write that the model of this Lease is in use now. Raises KubeError.

        It fails with status 404 if there is no such Lease: a merge patch creates nothing.
        """
        if OBJECT_NAME.fullmatch(name) is None:
            raise KubeError(404, f"No Lease has the name {name[:63]!r}.", reason="NotFound")
        spec = {"renewTime": micro_time(datetime.now(UTC)), "holderIdentity": self._holder}
        await self._session.request(
            _ITSELF,
            "PATCH",
            f"{self._collection}/{name}",
            body={"spec": spec},
            headers=MERGE_PATCH,
            most_bytes=LEASE_BYTES,
        )


def micro_time(at: datetime) -> str:
    """A time as a MicroTime of Kubernetes. at: in any time zone."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
