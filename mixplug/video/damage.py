"""Which frames depend on packets that could not be decoded."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from mixplug.video.packets import Unit


@dataclass
class Damage:
    """Damage spreads to all that is decoded after it, up to the next keyframe.

    Frames that are decoded after a keyframe, but shown before it, may depend on what is before the
    keyframe too.

    Attributes:
        places: ticks of the frames whose packets are damaged, of all times.
    """

    places: set[int] = field(default_factory=set)
    _keys: list[Unit] = field(default_factory=list)  # of this run of the decoder
    _orders: list[int] = field(default_factory=list)  # of the keys
    _first: dict[int, tuple[int, int]] = field(default_factory=dict)  # order and tick, by key

    def restart(self) -> None:
        """The decoder starts with a keyframe."""
        self._keys, self._orders, self._first = [], [], {}

    def enter(self, key: Unit) -> None:
        """A keyframe goes into the decoder."""
        self._keys.append(key)
        self._orders.append(key.order)

    def note(self, unit: Unit) -> None:
        """A packet is damaged."""
        self.places.add(unit.pts)
        group, found = self._group(unit), (unit.order, unit.pts)
        self._first[group] = min(found, self._first.get(group, found))

    def behind(self, unit: Unit) -> int | None:
        """The tick of the damage that a frame may show, if there is any."""
        group = self._group(unit)
        order, pts = self._first.get(group, (unit.order + 1, 0))
        if order <= unit.order:
            return pts
        if group - 1 in self._first and unit.pts < self._keys[group].pts:
            return self._first[group - 1][1]
        return None

    def _group(self, unit: Unit) -> int:
        return bisect.bisect_right(self._orders, unit.order) - 1
