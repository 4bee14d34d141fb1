"""The gangs of all FineTunes that lack nodes, as values. `core/attempts/gangs.py` decides."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Gang:
    """An attempt some of whose pods have no node. `held`: the number of those that have one."""

    namespace: str
    name: str  # of the FineTune
    created: str  # when the FineTune was created: RFC 3339, or empty
    priority: int  # of its pods
    wanted: int
    held: int
    devices: tuple[tuple[str, int], ...]  # extended resources of each pod
    since: datetime | None  # the last time that one of its pods was created, placed, or refused
    is_refused: bool = False  # the missing pods cannot be created: a quota of the namespace is full
    releases: int = 0  # of the attempts just before this one

    @property
    def is_partial(self) -> bool:
        return 0 < self.held < self.wanted

    @property
    def order(self) -> tuple[int, int, str, str, str]:
        """The smaller one keeps its pods.

        The priority comes first, and then the number of releases, so that a gang that fits is not
        released forever for older ones that never fit. Of equal ones, the older keeps its pods.
        """
        return (-self.priority, -self.releases, self.created, self.namespace, self.name)

    def helps(self, other: "Gang") -> bool:
        """Whether another gang may get the pods' places."""
        if other.is_refused and other.namespace != self.namespace:
            return False
        return dict(other.devices).keys() <= dict(self.devices).keys()

    def fits_into_places_of(self, other: "Gang") -> bool:
        """Whether all of its pods need no more than the pods of another gang hold."""
        if not self.devices:
            return self.wanted <= other.held
        held = {name: amount * other.held for name, amount in other.devices}
        return all(amount * self.wanted <= held.get(name, 0) for name, amount in self.devices)


@dataclass(frozen=True)
class Rivals:
    """What is known of the gangs of all other FineTunes."""

    gangs: tuple[Gang, ...] = ()
    released_at: datetime | None = None  # the last release that the operator has recorded
    is_leaving: bool = False  # the pods of a released gang have not ended yet


NO_RIVALS = Rivals()
