"""Find the frames that depend on packets that could not be decoded."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from mixplug.video.packets import Unit


@dataclass
class Damage:
    """Damaged packets, and the frames that they affect.

    Damage affects all frames that are decoded after it, up to the next keyframe. A frame that is
    decoded after a keyframe but shown before it may also depend on packets before the keyframe.

    Attributes:
        places: ticks of all frames whose packets were found damaged, in all runs.
    """

    places: set[int] = field(default_factory=set)
    _keys: list[Unit] = field(default_factory=list)  # keyframes of this run of the decoder
    _orders: list[int] = field(default_factory=list)  # their orders
    # order and tick of the first damage after a keyframe, by the keyframe's index
    _first: dict[int, tuple[int, int]] = field(default_factory=dict)

    def restart(self) -> None:
        """The decoder starts a new run at a keyframe."""
        self._keys, self._orders, self._first = [], [], {}

    def add_keyframe(self, key: Unit) -> None:
        """A keyframe is sent to the decoder."""
        self._keys.append(key)
        self._orders.append(key.order)

    def add(self, unit: Unit) -> None:
        """A packet is damaged."""
        self.places.add(unit.pts)
        group, found = self._group(unit), (unit.order, unit.pts)
        self._first[group] = min(found, self._first.get(group, found))

    def cause(self, unit: Unit) -> int | None:
        """Tick of the damage on which a frame may depend, or None."""
        group = self._group(unit)
        order, pts = self._first.get(group, (unit.order + 1, 0))
        if order <= unit.order:
            return pts
        if group - 1 in self._first and unit.pts < self._keys[group].pts:
            return self._first[group - 1][1]
        return None

    def _group(self, unit: Unit) -> int:
        return bisect.bisect_right(self._orders, unit.order) - 1
