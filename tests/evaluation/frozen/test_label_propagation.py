"""The protocol as it is written down, and what is held at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from evaluation import films_of_squares as films
from PIL import Image
from reference.propagation import propagated
from torch import Tensor
from weights.made import timm_vit

from mixplug.evaluation.frozen import label_propagation
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.label_propagation import Protocol, patch_labels, segment
from mixplug.functional.propagation import label_map
from mixplug.functional.vos import region_similarity
from mixplug.models.vit.encoder import as_encoder

OWN_SIZE = Protocol(size=films.HEIGHT)


def jaccard(masks: list[Tensor], annotations: list[Tensor], label: int) -> float:
    pairs = zip(masks, annotations[1:], strict=True)
    return sum(float(region_similarity(a == label, b == label)) for a, b in pairs) / len(masks)


def test_squares_are_found_wherever_they_move() -> None:
    """As well as patches can tell: their corners are rounded by the interpolation."""
    frames, annotations = films.squares(7)
    masks = list(segment(films.network(), frames, annotations[0], 2, OWN_SIZE))
    size = (films.HEIGHT, films.WIDTH)
    ideal = [
        label_map(patch_labels(a, films.GRID, 3).float(), films.GRID, size) for a in annotations[1:]
    ]
    for label in (1, 2):
        best = jaccard(ideal, annotations, label)
        assert best > 0.95
        assert jaccard(masks, annotations, label) == pytest.approx(best, abs=0.01)
    stay = [annotations[0]] * 6
    assert max(jaccard(stay, annotations, label) for label in (1, 2)) < 0.2  # it is no still video


def test_without_reach_labels_stay_where_they_are() -> None:
    frames, annotations = films.squares(4)
    protocol = Protocol(size=films.HEIGHT, radius=0)
    masks = list(segment(films.network(), frames, annotations[0], 2, protocol))
    size = (films.HEIGHT, films.WIDTH)
    first = label_map(patch_labels(annotations[0], films.GRID, 3).float(), films.GRID, size)
    assert all(torch.equal(mask.long(), first) for mask in masks)


def test_stripes_that_stand_still_are_exact() -> None:
    frames, annotations = films.stripes(5)
    masks = list(segment(films.network(), frames, annotations[0], 2, OWN_SIZE))
    assert len(masks) == 4 and masks[0].dtype == torch.uint8
    assert all(torch.equal(mask, annotations[0]) for mask in masks)


@pytest.mark.parametrize("last_frames", [0, 1, 2])
def test_the_protocol_step_by_step(last_frames: int) -> None:
    """A random network on noise; propagation is a loop over positions, and Pillow resizes."""
    torch.manual_seed(3)
    frozen = Frozen(as_encoder(timm_vit(dynamic_img_size=True)), "")
    frames = list(torch.randint(256, (5, 3, 30, 47), dtype=torch.uint8))
    annotation = torch.zeros(30, 47, dtype=torch.uint8)
    annotation[5:20, 8:22], annotation[12:28, 26:40] = 1, 2
    protocol = Protocol(24, 8, last_frames, topk=3, radius=1, temperature=0.2)
    masks = list(segment(frozen, frames, annotation, 2, protocol))
    grid, size = (3, 4), (24, 32)  # 47 * 24 / 30 = 37.6 is four patches of 8 and a bit
    small = Image.fromarray(annotation.numpy()).resize((4, 3), Image.Resampling.NEAREST)
    start = F.one_hot(torch.tensor(list(small.tobytes())), 3).double()
    features = []
    for frame in frames:
        image = F.interpolate(frozen.normalized(frame[None]), size, mode="bilinear")
        with torch.no_grad():
            tokens = frozen.encoder.backbone.forward_features(image)[0, 1:]
        features.append(tokens / tokens.norm(dim=1, keepdim=True))
    labels = [start]
    for now in range(1, 5):
        known = [0, *range(max(1, now - last_frames), now)]
        context = torch.stack([features[f] for f in known])
        given = torch.stack([labels[f] for f in known])
        labels.append(propagated(features[now], context, given, 3, 0.2, 1, grid))
        whole = label_map(labels[-1], grid, size)
        picture = Image.fromarray(whole.byte().numpy()).resize((47, 30), Image.Resampling.NEAREST)
        expected = torch.tensor(list(picture.tobytes())).reshape(30, 47)
        assert float((masks[now - 1] == expected).float().mean()) > 0.995  # but for rounding
    assert masks[-1].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("frame", "patch", "size"),
    [
        ((480, 854), (16, 16), (480, 832)),  # DINO's: 30 x 52 patches
        ((854, 480), (16, 16), (832, 480)),
        ((480, 910), (8, 8), (480, 896)),
        ((1080, 1920), (16, 16), (480, 832)),
        ((480, 854), (14, 14), (476, 854)),  # 64 is no multiple of 14
        ((480, 480), (16, 16), (480, 480)),
    ],
)
def test_the_size_for_the_network(frame, patch, size) -> None:
    assert Protocol().network_size(*frame, patch) == size


def test_one_pass_per_frame_and_a_context_that_does_not_grow(monkeypatch) -> None:
    frozen = films.network()
    passes, contexts = [], []
    tokens, propagate = frozen.encoder.tokens, label_propagation.propagate

    def counted(images: Tensor) -> object:
        passes.append(len(images))
        return tokens(images)

    def seen(query: Tensor, context: Tensor, *rest, **keys) -> Tensor:
        contexts.append(len(context))
        return propagate(query, context, *rest, **keys)

    monkeypatch.setattr(frozen.encoder, "tokens", counted)
    monkeypatch.setattr(label_propagation, "propagate", seen)
    frames, annotations = films.stripes(6)
    read = []

    def reading() -> Iterator[Tensor]:
        for number, frame in enumerate(frames):
            read.append(number)
            yield frame

    masks = segment(frozen, reading(), annotations[0], 2, Protocol(films.HEIGHT, last_frames=2))
    next(masks)
    assert read == [0, 1]  # frames are read as they are needed
    assert len(list(masks)) == 4
    assert passes == [1] * 6 and contexts == [1, 2, 3, 3, 3]


def test_bad_input() -> None:
    frames, annotations = films.squares(2)
    with pytest.raises(ValueError, match=r"labels in \[0, 1\], got 2"):
        next(segment(films.network(), frames, annotations[0], 1))
    small = [frames[0], frames[1][:, 1:]]
    with pytest.raises(ValueError, match=r"Frame 1 has \(63, 128\) pixels, .* has \(64, 128\)"):
        list(segment(films.network(), small, annotations[0], 2, OWN_SIZE))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"size": 0}, "size >= 1, got 0"),
        ({"last_frames": -1}, "last_frames >= 0, got -1"),
        ({"topk": 0}, "topk >= 1, got 0"),
        ({"radius": -1}, "radius >= 0, got -1"),
        ({"temperature": 0.0}, "temperature > 0, got 0.0"),
    ],
)
def test_bad_protocols(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**keys)
