"""What the figures of a card need in addition to its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.evaluation.card.passes import State
from mixplug.evaluation.card.subject import Stream, Subject
from mixplug.functional.dense import attention_map
from mixplug.functional.ood import max_softmax

_CLASSES, _PER_CLASS = 10, 100  # classes of the embedding figure (thesis, Figure 5.3), images each
_IMAGES = 6  # images of the attention figure
_PURPOSE = 2  # separates the draw of classes from other draws of a seed


def max_softmax_of(
    names: Sequence[str], subject: Subject, states: Sequence[State]
) -> dict[str, Tensor]:
    """Maximum of softmax (N,) of the images of each set."""
    pairs = zip(names, states, strict=False)  # the training images come last, without a name
    return {name: max_softmax(state["logits"].double()) for name, state in pairs}


def embeddings_of_classes(
    seed: int, subject: Subject, states: Sequence[State]
) -> dict[str, Tensor]:
    """At most 100 embeddings of each of 10 classes, the same images for all networks."""
    labels = states[0]["labels"]
    classes = labels.unique()
    source = sampling.generators(seed, _PURPOSE, rank=-3).local
    drawn = classes[sampling.permutation(len(classes), source)][:_CLASSES]
    chosen = torch.cat([(labels == one).nonzero()[:_PER_CLASS, 0] for one in drawn])
    return {"embeddings": states[0]["embeddings"][chosen], "labels": labels[chosen]}


def attention(stream: Stream, subject: Subject, states: Sequence[State]) -> dict[str, Tensor]:
    """Six images (n, C, H, W) spread over a stream, and attention maps (n, h, w) of the network.

    The map is (5.9) of the thesis: u is average pooling, h is ReLU followed by ℓ1 (Figure 5.6).
    """
    every = max(1, len(stream) // _IMAGES)
    chosen = [stream.dataset[i][0] for i in range(0, len(stream), every)][:_IMAGES]
    pixels = subject.pixels(torch.stack(chosen))
    maps = subject.maps(pixels)
    found = attention_map(maps.flatten(2)).unflatten(1, maps.shape[2:])
    return {"images": pixels.cpu(), "maps": found.cpu()}
