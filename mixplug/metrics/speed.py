"""Size and speed of a network."""

from __future__ import annotations

from dataclasses import dataclass

from mixplug.numbers import card_number


@dataclass(frozen=True)
class Timing:
    """A timed forward pass.

    Attributes:
        parameters: number of parameters of the network.
        images: number of images of the batch.
        seconds: time of the fastest pass.
    """

    parameters: int
    images: int
    seconds: float


@card_number("parameters", part="speed", source="timing", label="parameters", unit="M", digits=2)
def parameters(timing: Timing) -> int:
    """Number of parameters."""
    return timing.parameters


@card_number("images_per_second", part="speed", source="timing", label="images a second", digits=0)
def images_per_second(timing: Timing) -> float:
    """Images that pass through the network in a second."""
    return timing.images / timing.seconds
