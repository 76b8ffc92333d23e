"""Packets that no other needs.

libavcodec can leave out such frames itself (``skip_frame``), but then it also passes over packets
in silence whose header is damaged, and what depends on them comes out wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SLICE = 1  # H.264: a slice of a picture that is not an IDR one, not partitioned
_BESIDE = (6, 9, 12)  # supplemental information, delimiter, filler
_START = b"\0\0\1"


class Expendable:
    """Whether a packet's frame is certainly no reference, and the packet looks sound.

    Known of H.264 from the headers of its NAL units, of other codecs only where the container says
    so.

    Args:
        codec: PyAV's context.
    """

    def __init__(self, codec: Any) -> None:
        extra = bytes(codec.extradata or b"")
        self._h264 = codec.name == "h264"
        # avcC tells how long the lengths before NAL units are; else start codes part them
        self._length = (extra[4] & 3) + 1 if len(extra) > 6 and extra[0] == 1 else 0

    def __call__(self, packet: Any) -> bool:
        """Whether ``packet`` can be left out."""
        if packet.is_disposable:
            return True
        if not self._h264:
            return False
        slices = 0
        for header in self._headers(packet):
            kind = header & 31
            if header & 0x80 or (kind != _SLICE and kind not in _BESIDE):
                return False
            if kind == _SLICE:
                slices += 1
                if header & 0x60:  # nal_ref_idc: it is a reference
                    return False
        return slices > 0

    def _headers(self, packet: Any) -> Iterator[int]:
        """The first byte of every NAL unit; 0x80, which none may be, where they do not fit."""
        data = memoryview(packet)
        if self._length:
            place = 0
            while place + self._length < len(data):
                size = int.from_bytes(data[place : place + self._length], "big")
                place += self._length
                yield data[place] if 0 < size <= len(data) - place else 0x80
                place += max(size, 1)
            return
        whole = bytes(data)
        place = whole.find(_START)
        while 0 <= place < len(whole) - len(_START):
            yield whole[place + len(_START)]
            place = whole.find(_START, place + len(_START))
