"""When the Lease of each model in use is renewed. Times are arguments: seconds of one clock."""

from __future__ import annotations

from dataclasses import dataclass

RENEW_SECONDS = 30.0  # between two renewals while the server answers
NOT_READY_SECONDS = 5.0  # while it does not: the operator has perhaps not created the Lease yet


@dataclass
class _Lease:
    """What is known of one Lease."""

    requests: int = 0  # in flight
    at: float | None = None  # start of the last renewal
    is_wanted: bool = False  # a renewal must begin now
    refusal: int | None = None  # HTTP status with which the last renewal was refused

    def has_passed(self, now: float, seconds: float) -> bool:
        """Whether the last renewal is at least so many seconds ago, if there was one."""
        return self.at is None or now - self.at >= seconds


class Renewals:
    """The requests in flight and the renewals of each Lease, by its name."""

    def __init__(
        self,
        renew_seconds: float = RENEW_SECONDS,
        not_ready_seconds: float = NOT_READY_SECONDS,
    ) -> None:
        self._renew_seconds = renew_seconds
        self._not_ready_seconds = not_ready_seconds
        self._leases: dict[str, _Lease] = {}

    @property
    def known(self) -> int:
        """Number of Leases that are remembered."""
        return len(self._leases)

    def begin(self, name: str, now: float) -> bool:
        """A request is in flight. Returns whether it is the only one.

        It renews nothing before its `want`, because it can still be refused.
        """
        lease = self._leases.get(name)
        if lease is None or self._is_over(lease, now):
            lease = self._leases[name] = _Lease()
        lease.requests += 1
        return lease.requests == 1

    def end(self, name: str) -> None:
        """The request has ended."""
        lease = self._leases[name]
        lease.requests -= 1
        if not lease.requests and lease.at is None and not lease.is_wanted:
            del self._leases[name]

    def want(self, name: str, now: float, *, is_ready: bool = True) -> bool:
        """Whether the Lease must be renewed now for a request in flight.

        is_ready: False if the server of the model did not answer the request.
        """
        lease = self._leases[name]
        seconds = self._renew_seconds if is_ready else self._not_ready_seconds
        lease.is_wanted = lease.is_wanted or lease.has_passed(now, seconds)
        return lease.is_wanted

    def take_due(self, now: float) -> list[str]:
        """The Leases whose renewal is due, and begins with this call."""
        self._leases = {
            name: lease for name, lease in self._leases.items() if not self._is_over(lease, now)
        }
        due = [name for name, lease in self._leases.items() if self._is_due(lease, now)]
        for name in due:
            self._leases[name].at, self._leases[name].is_wanted = now, False
        return due

    def seconds_to_next(self, now: float) -> float | None:
        """Seconds until the next renewal for requests in flight. None: there is none."""
        times = [
            lease.at + self._renew_seconds
            for lease in self._leases.values()
            if lease.requests and lease.at is not None
        ]
        return max(0.0, min(times) - now) if times else None

    def record(self, name: str, refusal: int | None) -> None:
        """The end of a renewal. refusal: HTTP status of a refusal. None: it succeeded."""
        if name in self._leases:
            self._leases[name].refusal = refusal

    def refusal(self, name: str) -> int | None:
        """HTTP status with which the last renewal was refused. None: it was not."""
        return self._leases[name].refusal if name in self._leases else None

    def _is_due(self, lease: _Lease, now: float) -> bool:
        """Whether to renew a Lease that is not over."""
        is_late = lease.at is not None and lease.has_passed(now, self._renew_seconds)
        return lease.is_wanted or is_late

    def _is_over(self, lease: _Lease, now: float) -> bool:
        """Whether nothing needs to be remembered: the next request renews at once."""
        if lease.requests or lease.is_wanted:
            return False
        return lease.has_passed(now, self._renew_seconds)
