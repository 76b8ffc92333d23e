"""Proxy Synthesis against the loss of an extended batch by loops, and its random draws."""

from __future__ import annotations

import pytest
import torch
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor

import mixplug
from mixplug import sampling
from mixplug.losses.base import PairLoss
from mixplug.losses.proxy_synthesis import ProxySynthesis

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2])
FIRST = torch.tensor([0, 1, 3, 3])
SECOND = torch.tensor([3, 0, 4, 0])  # 0 is mixed twice with 3, as two classes
ROWS = {
    "ProxyAnchor": naive.row("published", 32, 32, 0.1),
    "ProxyNCA": naive.row("ProxyNCA"),
    "ProxyNCAPlusPlus": naive.row("ProxyNCAPlusPlus", temperature=1 / 9),
}


def batch(dtype: torch.dtype = torch.float32, width: int = 5) -> Tensor:
    return torch.randn(7, width, dtype=dtype).mul_(2).requires_grad_()


def inner(name: str, dtype: torch.dtype = torch.float64, **keys: object) -> PairLoss:
    return mixplug.build({"type": name, "num_classes": 4, "dim": 5, **keys}).to(dtype)


def loop(
    name: str, e: Tensor, proxies: Tensor, first: Tensor, second: Tensor, lam: float, unit: bool
) -> Tensor:
    """Eq. 4.7 over a batch and proxies, extended by synthetic ones one by one."""
    x, p = list(naive.unit(e)), list(naive.unit(proxies))
    labels, classes = LABELS.tolist(), list(range(len(p)))
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        embedding = lam * x[i] + (1 - lam) * x[j]
        proxy = lam * p[labels[i]] + (1 - lam) * p[labels[j]]
        x.append(embedding / embedding.norm() if unit else embedding)
        p.append(proxy / proxy.norm() if unit else proxy)
        labels.append(len(classes))
        classes.append(len(classes))
    examples, anchors = (torch.stack(x), labels), (torch.stack(p), classes)
    order = (anchors, examples) if name == "ProxyAnchor" else (examples, anchors)
    return naive.clean(ROWS[name], naive.World(*order[0], *order[1], itself=False))


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_equals_the_loop(name: str, renormalize: bool, dtype: torch.dtype) -> None:
    e, loss = batch(dtype), inner(name, dtype)
    synthesis = ProxySynthesis(loss, renormalize=renormalize)
    value = synthesis.synthesized(e, LABELS, FIRST, SECOND, 0.3)
    expected = loop(name, e, loss.proxies, FIRST, SECOND, 0.3, renormalize)
    assert value.dtype == dtype
    assert_same_gradients(value, expected, [("embeddings", e), ("proxies", loss.proxies)])


def drawn(monkeypatch: pytest.MonkeyPatch, mu: float, step: int = 0, **keys: float) -> list:
    """The lists of first, second and λ that a step draws."""
    synthesis = ProxySynthesis(inner("ProxyAnchor"), mu=mu, **keys)
    seen: list = []
    given = synthesis._synthesized

    def spy(e: Tensor, y: Tensor, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        seen.extend([first.tolist(), second.tolist(), lam.tolist()])
        return given(e, y, first, second, lam)

    monkeypatch.setattr(synthesis, "_synthesized", spy)
    synthesis(batch(torch.float64), LABELS, generators=sampling.generators(0, step))
    return seen


@pytest.mark.parametrize(
    ("mu", "first"),
    [
        (1.0, [0, 1, 2, 3, 4, 5, 6]),
        (0.5, [0, 1, 2, 3]),  # 3.5, rounded to even
        (0.1, [0]),
        (1.4, [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]),
        (2.0, [0, 1, 2, 3, 4, 5, 6] * 2),
    ],
)
def test_numbers_of_synthetic_classes(
    mu: float, first: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    got, partners, lam = drawn(monkeypatch, mu)
    assert got == first and len(lam) == 1
    for i, j in zip(got, partners, strict=True):
        assert LABELS[i] != LABELS[j]


def test_partners_are_any_of_the_other_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    met: dict[int, set[int]] = {i: set() for i in range(7)}
    for step in range(60):
        first, second, _ = drawn(monkeypatch, 1.0, step)
        for i, j in zip(first, second, strict=True):
            met[i].add(j)
    for i in range(7):
        assert met[i] == {j for j in range(7) if LABELS[i] != LABELS[j]}


def test_weights_by_default_are_far_from_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variance of Beta(0.4, 0.4) is 1 / 7.2, that of the uniform distribution is 1 / 12."""
    lam = torch.tensor([drawn(monkeypatch, 1.0, step)[2][0] for step in range(400)])
    assert abs(float(lam.mean()) - 0.5) < 0.06
    assert abs(float(lam.var()) - 1 / 7.2) < 0.02
    asked: list[float] = []
    draw = sampling.beta
    monkeypatch.setattr(sampling, "beta", lambda a, *rest: asked.append(a) or draw(a, *rest))
    drawn(monkeypatch, 1.0, alpha=3.0)
    assert asked == [3.0]


@pytest.mark.parametrize("name", ROWS)
def test_the_step_is_the_loss_of_what_was_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    e, loss = batch(torch.float64), inner(name)
    synthesis = ProxySynthesis(loss)
    seen: list[Tensor] = []
    given = synthesis._synthesized
    monkeypatch.setattr(synthesis, "_synthesized", lambda *a: seen.extend(a) or given(*a))
    value = synthesis(e, LABELS, generators=sampling.generators(0, 5))
    _, _, first, second, lam = seen
    assert_near(value, loop(name, e, loss.proxies, first, second, float(lam), True))
    assert synthesis.forward_in_host(e, LABELS, generators=sampling.generators(0, 5)) == value
    assert synthesis(e, LABELS, generators=sampling.generators(0, 6)) != value
    assert synthesis.unmixed is loss


def test_one_class_has_nothing_to_mix() -> None:
    e, y, loss = batch(torch.float64), torch.ones(7, dtype=torch.long), inner("ProxyAnchor")
    assert_near(ProxySynthesis(loss)(e, y), loss(e, y))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"loss": "MultiSimilarity"},
            r"ProxySynthesis needs a loss with proxies, such as .*, got ",
        ),
        ({"loss": torch.nn.ReLU()}, r"ProxySynthesis needs a pair loss.*got ReLU"),
        ({"alpha": 0}, r"ProxySynthesis needs alpha > 0, got 0\."),
        ({"mu": 0}, r"ProxySynthesis needs mu > 0, got 0\."),
    ],
    ids=str,
)
def test_wrong_settings_raise(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixplug.build({"type": "ProxySynthesis", "loss": inner("ProxyAnchor"), **keys})


def test_wrong_arguments_of_synthesized_raise() -> None:
    synthesis = ProxySynthesis(inner("ProxyAnchor"))
    e = batch(torch.float64)
    with pytest.raises(ValueError, match=r"ProxySynthesis needs lam in \[0, 1\], got 1\.2\."):
        synthesis.synthesized(e, LABELS, FIRST, SECOND, 1.2)
    with pytest.raises(ValueError, match=r"second of other classes than \[0, 1\], got \[2, 0\]\."):
        synthesis.synthesized(e, LABELS, FIRST[:2], torch.tensor([2, 0]), 0.5)
