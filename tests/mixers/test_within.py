"""Mixing within a host's own model: rows and positions with labels, against loops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from reference import dense as naive_dense
from reference import hull as naive
from reference.compare import assert_near, assert_same_gradients
from reference.targets import cross_entropy, one_hot
from torch import Tensor
from torch.testing import assert_close

import mixplug
from mixplug import Mixer, Plan, sampling
from mixplug.mixers import base
from mixplug.mixers.base import CLEAN
from mixplug.mixers.building import build_mixer
from mixplug.mixers.dense_multimix import DenseMultiMix
from mixplug.mixers.multimix import MultiMix

HULL = Plan("hull", key=5)
LABELS = [2, 0, 1, 3, 3]


def weights_of(mixer: MultiMix, size: int, n: int, positions: int | None = None) -> Tensor:
    source = torch.Generator().manual_seed(HULL.key)
    return sampling.hull_weights(n, size, mixer.alpha, mixer.m, source, positions)


def scaled(weights: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """(5.10)-(5.11) for rows: M̂ (M, B) and s (M,)."""
    m_hat, s = naive_dense.scaled_weights(weights[..., None], a[:, None])
    return m_hat[..., 0], s[:, 0]


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("m", [None, 2])
@pytest.mark.parametrize("weight", [[1.0] * 5, [1.0, 2.0, 0.5, 0.0, 3.0]], ids=["one", "several"])
def test_rows_equal_the_loop_over_mixed_embeddings(
    weight: list[float], m: int | None, dtype: torch.dtype
) -> None:
    mixer, a = MultiMix(n=6, m=m), torch.tensor(weight, dtype=dtype)
    e = torch.randn(5, 7, dtype=dtype, requires_grad=True)
    w, b = torch.randn(4, 7, dtype=dtype, requires_grad=True), torch.randn(4, dtype=dtype)
    m_hat, s = scaled(weights_of(mixer, 5, 6), a)
    embeddings = naive.combine(e, m_hat)
    targets = naive.combine(one_hot(LABELS, 4), m_hat)
    terms = [cross_entropy(w @ one + b, y) for one, y in zip(embeddings, targets, strict=True)]
    expected = sum(float(c) * term for c, term in zip(s, terms, strict=True)) / 6
    mixed = mixer.mix_rows(F.linear(e, w, b), torch.tensor(LABELS), HULL, a)
    assert_same_gradients(mixed.loss(), expected, [("e", e), ("W", w)])


def test_rows_of_no_weight_have_no_part(dtype: torch.dtype) -> None:
    logits = torch.randn(5, 4, dtype=dtype, requires_grad=True)
    a = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0], dtype=dtype)
    loss = MultiMix(n=20).mix_rows(logits, torch.tensor(LABELS), HULL, a).loss()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient.abs().sum(-1) > 0, a > 0)


def test_rows_in_a_permutation_give_the_hosts_weighted_mean(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.eye(5)[[3, 0, 4, 1, 2]]
    monkeypatch.setattr(sampling, "hull_weights", lambda *_: order)
    logits = torch.randn(5, 4, dtype=dtype, requires_grad=True)
    a, y = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0], dtype=dtype), torch.tensor(LABELS)
    expected = (F.cross_entropy(logits, y, reduction="none") * a).mean()
    loss = MultiMix().mix_rows(logits, y, HULL, a).loss()
    assert_same_gradients(loss, expected, [("logits", logits)])


def test_fewer_rows_than_m_are_all_mixed() -> None:
    mixed = MultiMix(n=4, m=3).mix_rows(
        torch.randn(2, 4), torch.tensor([0, 1]), HULL, torch.ones(2)
    )
    assert_close(mixed.weights.sum(-1), torch.ones(4))
    assert bool((mixed.weights > 0).all())


# ---------------------------------------------------------------- positions


def pixels(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings (3, 5, 4), W (4, 5), labels (3, 4), and weights with 0 where one is ignored."""
    e = torch.randn(3, 5, 4, dtype=dtype, requires_grad=True)
    w = torch.randn(4, 5, dtype=dtype, requires_grad=True)
    labels = torch.tensor([[0, 1, 2, 0], [3, 3, 0, 0], [1, 0, 2, 0]])
    known = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0]]).to(dtype)
    return e, w, labels, known


@pytest.mark.parametrize("m", [None, 2])
@pytest.mark.parametrize("n", [2, 1000])
@pytest.mark.parametrize("reduction", ["position_mean", "global"])
def test_positions_equal_the_loop_with_attention_zero_where_ignored(
    reduction: str, n: int, m: int | None, dtype: torch.dtype
) -> None:
    """At the last position all are ignored, at the second but one."""
    e, w, labels, known = pixels(dtype)
    mixer = DenseMultiMix(n=n, m=m, reduction=reduction)
    made = min(n, 3)
    m_hat, s = naive_dense.scaled_weights(weights_of(mixer, 3, made, 4), known)
    rows = torch.stack([one_hot(labels[:, j].tolist(), 4) for j in range(4)])
    logits, targets = [], []
    for k in range(made):
        z = [sum(float(m_hat[k, i, j]) * e[i, :, j] for i in range(3)) for j in range(4)]
        y = [sum(float(m_hat[k, i, j]) * rows[j, i] for i in range(3)) for j in range(4)]
        logits.append(torch.stack([w @ one for one in z], 1))
        targets.append(torch.stack(y, 1))
    expected = naive_dense.dense_loss(torch.stack(logits), torch.stack(targets), s, reduction)
    mixed = mixer.mix_positions(torch.einsum("kd,bdn->bkn", w, e), labels, HULL, known)
    assert_same_gradients(mixed.loss(), expected, [("e", e), ("W", w)])
    assert_near(mixed.target, torch.stack(targets).permute(2, 0, 1))
    plain = mixed.loss(lambda z, y: -(y * z.log_softmax(-1)).sum(-1))  # by rows, not by indices
    assert_same_gradients(plain, expected, [("e", e), ("W", w)])


def test_smoothing_needs_rows_and_gets_them(dtype: torch.dtype) -> None:
    e, w, labels, _ = pixels(dtype)
    logits, known = torch.einsum("kd,bdn->bkn", w, e), torch.ones(3, 4, dtype=dtype)
    mixed = DenseMultiMix(reduction="global").mix_positions(logits, labels, HULL, known)
    smoothed = 0.9 * mixed.target + 0.1 / 4
    expected = -(smoothed * mixed.logits.log_softmax(-1)).sum(-1).mean()
    assert_near(mixed.loss(torch.nn.CrossEntropyLoss(label_smoothing=0.1)), expected)


def test_positions_in_a_permutation_give_the_cross_entropy_with_ignore(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.eye(3)[[1, 2, 0]][..., None].expand(3, 3, 4)
    monkeypatch.setattr(sampling, "hull_weights", lambda *_: order)
    e, w, labels, known = pixels(dtype)
    logits = torch.einsum("kd,bdn->bkn", w, e)
    expected = F.cross_entropy(logits, torch.where(known > 0, labels, 255), ignore_index=255)
    mixed = DenseMultiMix(reduction="global").mix_positions(logits, labels, HULL, known)
    assert_same_gradients(mixed.loss(), expected, [("e", e), ("W", w)])


# ---------------------------------------------------------------- plans


@pytest.mark.parametrize("mixer", [MultiMix(prob=0.3), DenseMultiMix(prob=0.3)])
def test_a_plan_mixes_with_prob_alike_on_all_ranks(mixer: MultiMix) -> None:
    plans = [
        [mixer.sample_within(sampling.generators(0, step, rank)) for rank in (0, 1)]
        for step in range(400)
    ]
    assert all(a.branch == b.branch and a.key != b.key for a, b in plans)
    share = sum(a.branch != CLEAN for a, _ in plans) / 400
    assert abs(share - 0.3) < 0.07


def test_the_off_epoch() -> None:
    mixer = MultiMix(off_epoch=3)
    assert [mixer.is_off(epoch) for epoch in (0, 2, 3, 4)] == [False, False, True, True]
    assert not replace(mixer, off_epoch=None).is_off(1000)


# ---------------------------------------------------------------- errors


def test_a_mixer_without_the_way_names_those_that_have_it() -> None:
    text = (
        r"^InputMixup does not work in a host: it has no mix_rows, which mixes classified rows "
        r"with one label each, such as a detector's RoIs\. It mixes pairs of images, whose boxes "
        r"do not come in pairs\. Mixers that have it: MultiMix(, \w+)*\.$"
    )
    with pytest.raises(ValueError, match=text) as raised:
        mixplug.build("mixup").require_way("mix_rows", "a host")
    assert "DenseMultiMix" not in str(raised.value)


@pytest.mark.parametrize(
    ("mixer", "way", "text"),
    [
        ("multimix", "mix_positions", "has its own label. Mixers that have it: DenseMultiMix"),
        ("dense_multimix", "mix_rows", "no positions are left at its classifier. Mixers"),
        ("alignmix", "mix_positions", "49 x 49 in a classifier, but 16384 x 16384 in a segmentor"),
        ("cutmix", "mix_rows", "whose boxes do not come in pairs"),
        ({"type": "Metrix", "loss": "NCA"}, "mix_rows", "MetricMixing does not work in a host"),
    ],
)
def test_each_says_why(mixer: object, way: str, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        build_mixer(mixer).require_way(way, "a host")
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "way", "text"),
    [
        ({"type": "MultiMix", "layer": "body"}, "mix_rows", "needs layer None in a host: it mixes"),
        (
            {"type": "DenseMultiMix", "attention": "cam"},
            "mix_positions",
            "needs attention 'gap' or",
        ),
        ({"type": "DenseMultiMix", "resolution": 4}, "mix_positions", "needs resolution None in a"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict, way: str, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        mixplug.build(settings).require_way(way, "a host")
    assert text in str(raised.value)


def test_a_plugin_may_say_why_under_the_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"Mine\.unfit is now unsupported"):

        @dataclass(frozen=True, kw_only=True)
        class Mine(Mixer):
            unfit: ClassVar = {"mix_rows": "Mine has no rows."}

    with pytest.raises(ValueError, match=r"Mine has no rows\. Mixers that have it"):
        Mine().require_way("mix_rows", "a host")


def test_a_plugin_that_has_the_way_is_taken() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Mixer):
        def mix_rows(self, logits, y, plan, weight):
            return None

    Mine().require_way("mix_rows", "a host")
    assert Mine.has("mix_rows") and not Mine.has("mix_positions")
    assert set(base.WAYS) == {"mix_rows", "mix_positions"}
