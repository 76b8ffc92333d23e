"""Find packets that no other packet references.

libavcodec can skip such frames itself (``skip_frame``). But then it also silently passes over
packets with damaged headers, and frames that depend on them come out wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SLICE = 1  # H.264: a slice of a non-IDR picture, not partitioned
_NO_PICTURE = (6, 9, 12)  # supplemental information, delimiter, filler
_START = b"\0\0\1"


class Expendable:
    """Whether a packet's frame is certainly not a reference, and the packet looks intact.

    For H.264, the headers of the NAL units are read. For other codecs, there is only a flag of the
    container.

    Args:
        codec: codec context of PyAV.
    """

    def __init__(self, codec: Any) -> None:
        extra = bytes(codec.extradata or b"")
        self._h264 = codec.name == "h264"
        # avcC states the size of the length before each NAL unit; without it, start codes separate
        # the units
        self._length = (extra[4] & 3) + 1 if len(extra) > 6 and extra[0] == 1 else 0

    def __call__(self, packet: Any) -> bool:
        """Whether ``packet`` can be skipped."""
        if packet.is_disposable:
            return True
        if not self._h264:
            return False
        slices = 0
        for header in self._headers(packet):
            kind = header & 31
            if header & 0x80 or (kind != _SLICE and kind not in _NO_PICTURE):
                return False
            if kind == _SLICE:
                slices += 1
                if header & 0x60:  # nal_ref_idc: it is a reference
                    return False
        return slices > 0

    def _headers(self, packet: Any) -> Iterator[int]:
        """First byte of each NAL unit; 0x80, which is invalid, if lengths do not fit."""
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
