"""Speed and memory of label propagation at the size of DAVIS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mixplug.bench.measure import peak_bytes
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.label_propagation import Protocol, segment
from mixplug.models.vit.encoder import as_encoder, build_timm_vit

ARCH, SIZE, OBJECTS = "vit_small_patch16_224", (480, 854), 2
PROTOCOL = Protocol()


def measure_davis(
    device: torch.device | str = "cpu",
    frames: int = 4,
    arch: str = ARCH,
    size: tuple[int, int] = SIZE,
    tick: Callable[[], None] = lambda: None,
) -> tuple[float, int]:
    """Frames per second and peak memory of ``evaluation.frozen.label_propagation.segment``.

    The network has random weights and the video is noise in memory, so no file is read or written.
    Only frames count whose context is full, that is the first frame and the seven frames before, as
    in DINO's protocol.

    Args:
        device: device to run on.
        frames: number of frames that count, >= 1.
        arch: name of a timm model.
        size: (H, W) of a frame.
        tick: function that is called after each frame, ``frames`` + 7 times.

    Returns:
        Frames per second, and the peak memory in bytes beyond the weights.
    """
    device = torch.device(device)
    frozen = Frozen(as_encoder(build_timm_vit(arch).eval().to(device)), "random weights")
    early = PROTOCOL.last_frames
    seconds: list[float] = []

    def call() -> None:
        start = time.perf_counter()
        for number, _ in enumerate(_masks(frozen, size, 1 + early + frames)):
            now = time.perf_counter()  # the mask is on the CPU, so the GPU has finished
            if number >= early:
                seconds.append(now - start)
            start = now
            tick()

    peak = _peak(call, device)
    return frames / sum(seconds), peak


def _masks(frozen: Frozen, size: tuple[int, int], frames: int) -> Iterator[Tensor]:
    """Masks for moving noise with two square objects."""
    source = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (3, *size), dtype=torch.uint8, generator=source)
    annotation = torch.zeros(size, dtype=torch.uint8)
    side = size[0] // 4
    for number in range(OBJECTS):
        left = size[1] * (1 + 2 * number) // (2 * OBJECTS + 1)
        annotation[side : 2 * side, left : left + side] = number + 1
    video = (noise.roll(4 * number, dims=2) for number in range(frames))
    return segment(frozen, video, annotation, OBJECTS, PROTOCOL)


def _peak(call: Callable[[], None], device: torch.device) -> int:
    if device.type != "cuda":
        return peak_bytes(call)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before
