"""The frozen tracker: tokens, crops, the decoder, the unchanged encoder, and tracking."""

from __future__ import annotations

import math

import pytest
import torch
from got10k_folder import moving_square
from torch import Tensor, nn
from torch.testing import assert_close

from mixplug.functional import box_tokens as words
from mixplug.functional import crops
from mixplug.functional.tracking_metrics import box_overlaps
from mixplug.models.tracking.box_decoder import BoxDecoder, sinusoids
from mixplug.models.tracking.frozen_tracker import FrozenTracker
from mixplug.models.vit.encoder import as_encoder, build_timm_vit
from mixplug.models.vit.side_by_side import joint_patches

BINS = 32
SMALL = {"bins": BINS, "dim": 16, "heads": 2, "hidden": 24}


def vit(depth: int = 2, width: int = 24, patch: int = 8, **keys: object) -> nn.Module:
    torch.manual_seed(5)
    settings = {"img_size": 32, "patch_size": patch, "depth": depth, "embed_dim": width}
    return build_timm_vit("vit_tiny_patch16_224", num_heads=2, **settings, **keys)


def mm_vit(**keys: object) -> nn.Module:
    from mmpretrain.models import VisionTransformer

    torch.manual_seed(5)
    arch = {"embed_dims": 24, "num_layers": 2, "num_heads": 2, "feedforward_channels": 48}
    return VisionTransformer(arch=arch, img_size=32, patch_size=8, out_type="featmap", **keys)


def tracker(backbone: nn.Module | None = None, **settings: object) -> FrozenTracker:
    made = backbone if backbone is not None else vit()
    return FrozenTracker(made, **{"size": 32, **SMALL, **settings})


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, 3, 32, 32), dtype=torch.uint8)


# ---------------------------------------------------------------- boxes and tokens


@pytest.mark.parametrize("bins", [2, 32, 4000])
def test_dequantize_is_within_half_a_bin(bins: int, dtype: torch.dtype) -> None:
    shares = torch.rand(500, dtype=dtype)
    back = words.dequantize(words.quantize(shares, bins), bins)
    assert float((back - shares).abs().max()) <= 0.5 / (bins - 1) + 1e-6
    tokens = torch.arange(bins)
    assert torch.equal(words.quantize(words.dequantize(tokens, bins), bins), tokens)


def test_tokens_of_a_box_by_hand() -> None:
    """(-0.5, 0.25, 1, 0.5) is clipped to (0, 0.25, 0.5, 0.5), with the center (0.25, 0.5)."""
    tokens = words.box_tokens(torch.tensor([[-0.5, 0.25, 1.0, 0.5]]), 101)
    assert tokens.tolist() == [[25, 50, 50, 50]]
    assert_close(words.token_boxes(tokens, 101), torch.tensor([[0.0, 0.25, 0.5, 0.5]]))
    given, wanted = words.teacher_forcing(tokens, 101)
    assert given.tolist() == [[102, 25, 50, 50, 50]]  # start is bins + 1
    assert wanted.tolist() == [[25, 50, 50, 50, 101]]  # end is bins
    outside = words.clip_boxes(torch.tensor([[2.0, -3.0, 1.0, 1.0]]))
    assert outside.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="bins >= 2, got 1"):
        words.quantize(torch.zeros(1), 1)


def test_the_window_is_a_squared_sine() -> None:
    wanted = [math.sin(math.pi * i / 6) ** 2 for i in range(7)]
    assert_close(words.center_window(7), torch.tensor(wanted))


# ---------------------------------------------------------------- crops


def test_a_crop_shows_the_pixels_of_its_square() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    square = crops.square_around([10, 8, 4, 4], 2.0)
    assert square == crops.Square(8, 6, 8)
    assert torch.equal(crops.cut(image, square, 8), image[:, 6:14, 8:16])
    assert crops.square_around([0, 0, 2, 8], 1.0).side == 4  # the geometric mean


def test_a_crop_is_black_outside_of_the_image() -> None:
    image = torch.full((3, 20, 30), 200, dtype=torch.uint8)
    for square in (crops.Square(-3, -2, 10), crops.Square(25, 15, 10), crops.Square(-4, -4, 40)):
        wanted = torch.zeros(3, square.side, square.side, dtype=torch.uint8)
        for y in range(square.side):
            for x in range(square.side):
                if 0 <= square.top + y < 20 and 0 <= square.left + x < 30:
                    wanted[:, y, x] = 200
        assert torch.equal(crops.cut(image, square, square.side), wanted)
    assert not crops.cut(image, crops.Square(100, 100, 5), 8).any()


def test_box_coordinates_survive_a_round_trip_through_a_square(dtype: torch.dtype) -> None:
    square = crops.Square(8, 6, 16)
    boxes = torch.tensor([[10.0, 8.0, 4.0, 4.0]], dtype=dtype)
    inside = crops.into_square(boxes, square)
    assert_close(inside, torch.tensor([[0.125, 0.125, 0.25, 0.25]], dtype=dtype))
    assert_close(crops.out_of_square(inside, square), boxes)


def test_a_box_keeps_ten_pixels_in_the_image() -> None:
    assert crops.keep_inside([5, 6, 20, 30], 100, 100) == [5, 6, 20, 30]
    assert crops.keep_inside([-50, 95, 20, 30], 100, 100) == [0, 90, 10, 10]
    assert crops.keep_inside([90, 5, 30, 3], 100, 100) == [90, 5, 10, 10]
    assert crops.keep_inside([3, 3, 1, 1], 6, 6) == [0, 0, 6, 6]  # of an image smaller than that


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [math.nan, 0, 5, 5]])
def test_a_box_without_area_has_no_square(box: list[float]) -> None:
    with pytest.raises(ValueError, match="width and height > 0"):
        crops.square_around(box, 4.0)


# ---------------------------------------------------------------- the decoder


def decoder(**settings: object) -> BoxDecoder:
    torch.manual_seed(3)
    return BoxDecoder(24, 16, **{**SMALL, **settings}).eval()


def test_the_decoder_is_causal() -> None:
    model, patches = decoder(), torch.randn(2, 16, 24)
    tokens = torch.randint(0, BINS, (2, 5))
    whole = model(patches, tokens)
    for place in range(5):
        other = tokens.clone()
        other[:, place:] = (other[:, place:] + 7) % BINS
        changed = model(patches, other)
        assert_close(changed[:, :place], whole[:, :place], rtol=0, atol=1e-6)
        assert not torch.allclose(changed[:, place], whole[:, place], atol=1e-3)
        assert_close(model(patches, tokens[:, : place + 1])[:, -1], whole[:, place])


def attend(
    attention: nn.MultiheadAttention, q: Tensor, k: Tensor, v: Tensor, causal: bool
) -> Tensor:
    """Multi-head attention of one example, query by query and head by head."""
    heads, dim = attention.num_heads, q.shape[-1]
    part = dim // heads
    (wq, wk, wv), (bq, bk, bv) = (
        attention.in_proj_weight.chunk(3),
        attention.in_proj_bias.chunk(3),
    )
    q, k, v = q @ wq.T + bq, k @ wk.T + bk, v @ wv.T + bv
    out = torch.zeros_like(q)
    for h in range(heads):
        s = slice(h * part, (h + 1) * part)
        for i in range(len(q)):
            seen = range(i + 1) if causal else range(len(k))
            scores = torch.stack([q[i, s] @ k[j, s] / math.sqrt(part) for j in seen])
            for weight, j in zip(scores.softmax(0), seen, strict=True):
                out[i, s] += weight * v[j, s]
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


def test_the_decoder_by_a_naive_loop(dtype: torch.dtype) -> None:
    model = decoder(bins=9).to(dtype)
    patches, tokens = torch.randn(2, 16, 24, dtype=dtype), torch.randint(0, 11, (2, 5))
    got = model(patches, tokens)
    for b in range(2):
        memory = patches[b] @ model.narrow.weight.T + model.narrow.bias
        keys = memory + model.patch_positions
        x = model.norm_in(model.words.weight[tokens[b]])
        for block in model.blocks:
            q = x + model.places
            x = block.norms[0](x + attend(block.self_attention, q, q, x, causal=True))
            q = x + model.places
            x = block.norms[1](x + attend(block.cross_attention, q, keys, memory, causal=False))
            hidden = (x @ block.mlp[0].weight.T + block.mlp[0].bias).clamp(min=0)
            x = block.norms[2](x + hidden @ block.mlp[3].weight.T + block.mlp[3].bias)
        assert_close(got[b], model.likelihoods(model.norm_out(x)))


def test_decoding_is_greedy_and_uses_the_window() -> None:
    model, patches = decoder(), torch.randn(3, 16, 24)
    window = words.center_window(BINS)
    for given in (None, window):
        tokens, likely = model.read(patches, given)
        for b in range(3):
            said = [BINS + 1]
            for place in range(4):
                logits = model(patches[b : b + 1], torch.tensor([said]))[0, -1]
                chances = logits.softmax(0)[:BINS]
                if given is not None and place < 2:
                    chances = chances * given
                said.append(int(chances.argmax()))
                assert_close(likely[b, place], chances.max())
            assert tokens[b].tolist() == said[1:]
    edge = torch.zeros(BINS)
    edge[5] = 1
    assert (model.read(patches, edge)[0][:, :2] == 5).all()


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoids(6, 8)
    for p in range(6):
        for i in range(4):
            angle = p / 10_000 ** (2 * i / 8)
            assert_close(table[p, 2 * i], torch.tensor(math.sin(angle)))
            assert_close(table[p, 2 * i + 1], torch.tensor(math.cos(angle)))


def test_wrong_arguments_of_the_decoder_raise() -> None:
    with pytest.raises(ValueError, match=r"a multiple of 2 \* heads as dim, .*dim=10, heads=2"):
        decoder(dim=10)
    with pytest.raises(ValueError, match="bins=1"):
        decoder(bins=1)
    with pytest.raises(ValueError, match=r"\(B, 16, width\), got \(1, 9, 24\)"):
        decoder()(torch.zeros(1, 9, 24), torch.zeros(1, 1).long())
    with pytest.raises(ValueError, match=r"1 <= L <= 5, got \(1, 6\)"):
        decoder()(torch.zeros(1, 16, 24), torch.zeros(1, 6).long())


# ---------------------------------------------------------------- the encoder


@pytest.mark.parametrize("backbone", [vit, mm_vit], ids=["timm", "mmpretrain"])
def test_one_image_is_a_network_without_class_token(backbone) -> None:
    """Crops of a group attend to each other; computed by hand from the parts of the network."""
    model = backbone()
    model.eval()  # eval() of mmpretrain's backbones returns None
    view, given = as_encoder(model), torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        got = joint_patches(view, given)
        for b in range(2):
            if hasattr(model, "blocks"):
                x = torch.cat([model.patch_embed(image[None]).flatten(1, 2) for image in given[b]])
                x = x + model.pos_embed[:, 1:]
                x = model.norm(model.blocks(x.flatten(0, 1)[None]))
            else:
                x = torch.cat([model.patch_embed(image[None])[0] for image in given[b]])
                x = (x + model.pos_embed[:, 1:]).flatten(0, 1)[None]
                for layer in model.layers:
                    x = layer(x)
                x = model.ln1(x)
            assert_close(got[b], x[0].unflatten(0, (3, 16)), rtol=1e-4, atol=1e-5)


def test_the_network_is_not_modified() -> None:
    model = vit().eval()
    view, given = as_encoder(model), torch.randn(2, 3, 32, 32)
    before = view.tokens(given).patches
    joint_patches(view, given[None])
    assert torch.equal(view.tokens(given).patches, before)
    with pytest.raises(ValueError, match="not divisible"):
        joint_patches(view, torch.randn(1, 2, 3, 33, 32))
    assert torch.equal(view.tokens(given).patches, before)


def test_the_template_matters_and_neighbors_in_a_batch_do_not() -> None:
    model = tracker().eval()
    template, search = images(2, 2), images(2)
    whole = model.encode(template, search)
    assert_close(model.encode(template[1:], search[1:])[0], whole[1], rtol=1e-4, atol=1e-5)
    assert float((model.encode(template.flip(0), search) - whole).abs().max()) > 1e-3


# ---------------------------------------------------------------- training


def test_loss_is_the_mean_over_tokens_of_negative_log_likelihoods() -> None:
    model = tracker().eval()
    template, search = images(3, 2), images(3)
    boxes = torch.rand(3, 4) * torch.tensor([0.5, 0.5, 0.5, 0.5])
    patches = model.encode(template, search)
    total = 0.0
    for b in range(3):
        left, top, width, height = boxes[b].tolist()
        shares = (left + width / 2, top + height / 2, width, height)
        sequence = [*(round(share * (BINS - 1)) for share in shares), BINS]
        said = [BINS + 1]
        for word in sequence:
            logits = model.decoder(patches[b : b + 1], torch.tensor([said]))[0, -1]
            total -= float(logits.detach().double().log_softmax(0)[word])
            said.append(word)
    loss = model.loss(template, search, boxes)
    assert_close(loss, torch.tensor(total / 15), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", [vit, mm_vit], ids=["timm", "mmpretrain"])
def test_only_the_decoder_is_trained(backbone) -> None:
    model = tracker(backbone(drop_path_rate=0.5)).train()
    assert not model.backbone.training and model.decoder.training
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    learning = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.loss(images(2, 2), images(2), torch.full((2, 4), 0.3)).backward()
    # they require no gradient: distributed training would wait for it
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.backbone.parameters())
    lacking = [name for name, p in model.decoder.named_parameters() if p.grad is None]
    assert not lacking
    learning.step()
    assert all(torch.equal(before[n], v) for n, v in model.backbone.state_dict().items())


def test_images_are_normalized_by_their_channels() -> None:
    plain, scaled = tracker(), tracker(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    template, search = images(1, 2), images(1)
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    by_hand = [(255 * (crop.float() - mean) / std) for crop in (template, search)]
    assert_close(plain.encode(template, search), scaled.encode(*by_hand), rtol=1e-4, atol=1e-4)


def test_wrong_arguments_of_the_tracker_raise() -> None:
    with pytest.raises(ValueError, match="not divisible by the patch of 8 x 8"):
        tracker(size=30)
    with pytest.raises(ValueError, match=r"got 0, 1, 4\.0 and 4\.0"):
        tracker(templates=0)
    with pytest.raises(ValueError, match="VisionTransformer, got Linear"):
        tracker(nn.Linear(2, 2))
    model = tracker()
    with pytest.raises(ValueError, match=r"templates \(B, 2, 3, 32, 32\).*got \(1, 1, 3, 32, 32\)"):
        model.loss(images(1, 1), images(1), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="at least one frame"):
        model.track([], [0, 0, 5, 5])
    with pytest.raises(ValueError, match="width and height > 0"):
        model.train().track([torch.zeros(3, 40, 40, dtype=torch.uint8)], [0, 0, 0, 5])
    assert model.training


# ---------------------------------------------------------------- tracking


class FixedDecoder(nn.Module):
    """A decoder that always returns the same tokens."""

    def __init__(self, tokens: list[int], likely: float) -> None:
        super().__init__()
        self.bins, self.tokens, self.likely = 101, tokens, likely

    def read(self, patches: Tensor, window: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.tensor([self.tokens]), torch.full((1, 4), self.likely)


def recorded_templates(model: FrozenTracker) -> list[Tensor]:
    """A list to which the model appends the templates of every call of ``encode``."""
    seen: list[Tensor] = []
    plain = model.encode
    model.encode = lambda t, s: (seen.append(t.clone()), plain(t, s))[1]  # type: ignore[method-assign]
    return seen


def test_a_box_comes_back_from_its_crop_worked_out_by_hand() -> None:
    """A box of 16 x 16 at (40, 30) with factor 4: the crop is 64 wide and starts at (16, 6).

    The tokens (50, 75, 25, 50) of 100 give the center (16 + 32, 6 + 48), width 16 and height 32.
    The side of the next crop is 4 sqrt(16 * 32), rounded up to 91.
    """
    model = tracker(templates=1)
    model.decoder = FixedDecoder([50, 75, 25, 50], 0.0)
    frames = [torch.randint(0, 256, (3, 100, 120), dtype=torch.uint8) for _ in range(3)]
    ticks: list[int] = []
    found = model.train().track(
        iter(frames), torch.tensor([40, 30, 16, 16]), lambda: ticks.append(1)
    )
    assert found[0].tolist() == [40, 30, 16, 16]
    assert_close(found[1], torch.tensor([40, 38, 16, 32]).double())
    left, top = round(48 - 45.5), round(54 - 45.5)
    wanted = [left + 91 * (0.5 - 0.125), top + 91 * (0.75 - 0.25), 91 * 0.25, 91 * 0.5]
    wanted[3] = min(wanted[3], 100 - wanted[1])  # inside of the image
    assert_close(found[2], torch.tensor(wanted).double(), rtol=1e-5, atol=1e-4)
    assert found.dtype == torch.float64 and len(ticks) == 3 and model.training


@pytest.mark.parametrize(
    "likely, interval, renewed",
    [(0.2, 1, True), (0.01, 1, False), (0.2, 2, False), (0.2, 0, False)],
)
def test_a_template_is_updated_if_the_confidence_is_high(
    likely: float, interval: int, renewed: bool
) -> None:
    """The sums of likelihoods are 0.8 and 0.04, above and below the threshold of 0.06."""
    model = tracker(update_interval=interval)
    model.decoder = FixedDecoder([50, 50, 25, 25], likely)
    frames = [torch.randint(0, 256, (3, 100, 120), dtype=torch.uint8) for _ in range(3)]
    seen = recorded_templates(model)
    model.track(frames, [40, 30, 16, 16])
    first = crops.cut(frames[0], crops.Square(16, 6, 64), 32)
    later = crops.cut(frames[1], crops.Square(16, 6, 64), 32)
    assert torch.equal(seen[0][0], torch.stack([first, first]))
    assert torch.equal(seen[1][0], torch.stack([first, later if renewed else first]))


def test_a_small_tracker_learns_to_follow_a_square() -> None:
    """On an unseen path and background, the mean IoU must exceed 0.5 (it is 0.71).

    A box that does not move has an IoU of 0.04.
    """
    torch.manual_seed(0)
    model = FrozenTracker(vit(depth=1, width=48), 32, templates=1, bins=64, dim=32, heads=2,
                          hidden=64, dropout=0.0, window=False)  # fmt: skip
    pictures, boxes = moving_square(24, (10, 10), (3, 2), seed=3)
    learning = torch.optim.AdamW(model.decoder.parameters(), lr=3e-3)
    model.train()
    source = torch.Generator().manual_seed(0)
    template = crops.cut(pictures[0], crops.square_around(boxes[0].tolist(), 4), 32)
    for _ in range(150):
        search, targets = [], []
        for index in torch.randint(0, 24, (16,), generator=source).tolist():
            left, top, width, height = boxes[index].tolist()
            move = (20 * (torch.rand(2, generator=source) - 0.5)).tolist()
            stretch = float(torch.empty(()).uniform_(0.8, 1.25, generator=source))
            jittered = [left + move[0], top + move[1], width * stretch, height * stretch]
            square = crops.square_around(jittered, 4)
            search.append(crops.cut(pictures[index], square, 32))
            targets.append(crops.into_square(boxes[index], square).float())
        loss = model.loss(
            template.expand(16, 1, -1, -1, -1), torch.stack(search), torch.stack(targets)
        )
        learning.zero_grad()
        loss.backward()
        learning.step()
    unseen, truth = moving_square(20, (100, 70), (-4, -3), seed=8)
    found = model.track(unseen, truth[0])
    overlaps = box_overlaps(found, truth)[1:]
    still = box_overlaps(truth[:1].expand_as(truth), truth)[1:]
    assert overlaps.mean() > 0.5 and overlaps.min() > 0.2 and still.mean() < 0.1
