"""The generic pair loss against Table 4.1 as printed, and positivity (eq. 4.14)."""

from __future__ import annotations

import pytest
import torch
from reference import metric as naive
from reference.compare import assert_near, assert_same_gradients
from torch import Tensor
from torch.testing import assert_close

from mixplug.functional import similarity
from mixplug.functional.pairwise import TABLE, Additive, Form, LogSum, pair_share
from mixplug.functional.positivity import positivity_threshold
from mixplug.functional.similarity import mixed_similarity, nearest_negatives

SETTINGS = {
    "Contrastive": {"margin": 0.1},
    "LiftedStructure": {"margin": 0.4},
    "BinomialDeviance": {"beta": 2.0, "gamma": 7.0, "margin": 0.3},
    "MultiSimilarity": {"beta": 2.0, "gamma": 7.0, "margin": 0.3},
    "ProxyAnchor": {"beta": 3.0, "gamma": 5.0, "margin": 0.1},
    "NCA": {},
    "ProxyNCA": {},
    "ProxyNCAPlusPlus": {"temperature": 0.25},
}


def weighted(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities and labels y of 5 anchors; and which of 7 elements exist.

    Anchor 1 has only y = 1, anchor 2 only y = 0, anchor 3 nothing.
    """
    s = torch.rand(5, 7, dtype=dtype).mul_(2).sub_(1).requires_grad_()
    y, is_pair = torch.rand(5, 7, dtype=dtype), torch.rand(5, 7) < 0.7
    y[1], y[2] = 1, 0
    is_pair[3] = False
    return s, y, is_pair


def naive_loss(row: naive.Row, s: Tensor, y: Tensor, is_pair: Tensor, mean: bool) -> Tensor:
    anchors = []
    for a in range(len(s)):
        indices = [v for v in range(s.shape[1]) if is_pair[a, v]]
        elements = [(s[a, v].double(), float(y[a, v])) for v in indices]
        anchors.append(naive.terms(row, elements, mean))
    return naive.average(row, anchors)


def ours(form: Form, s: Tensor, y: Tensor, is_pair: Tensor, reduction: str = "sum") -> Tensor:
    none = torch.zeros_like(y)
    positive, negative = torch.where(is_pair, y, none), torch.where(is_pair, 1 - y, none)
    return pair_share(s, positive, negative, form, reduction).mean()


def test_the_table_has_the_eight_rows() -> None:
    assert set(TABLE) == set(SETTINGS)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", SETTINGS)
def test_interpolated_labels_equal_the_loop(name: str, reduction: str, dtype: torch.dtype) -> None:
    s, y, is_pair = weighted(dtype)
    row = naive.row(name, **SETTINGS[name])
    expected = naive_loss(row, s, y, is_pair, reduction == "mean")
    loss = ours(TABLE[name](**SETTINGS[name]), s, y, is_pair, reduction)
    assert loss.dtype == dtype
    assert_same_gradients(loss, expected, [("s", s)])


@pytest.mark.parametrize("name", SETTINGS)
def test_shares_of_chunks_add_up(name: str) -> None:
    s, y, is_pair = weighted(torch.float64)
    form = TABLE[name](**SETTINGS[name])
    none = torch.zeros_like(y)
    positive, negative = torch.where(is_pair, y, none), torch.where(is_pair, 1 - y, none)
    whole = pair_share(s, positive, negative, form)
    parts = [pair_share(s[i], positive[i], negative[i], form) for i in (slice(2), slice(2, 5))]
    assert_near((parts[0] + parts[1]).mean(), whole.mean())
    assert whole.anchors == 5


def test_separate_means_have_their_own_numbers_of_anchors(dtype: torch.dtype) -> None:
    s, y, is_pair = weighted(dtype)
    form = Form(LogSum(-3.0, 0.1), LogSum(5.0, -0.1), separate_means=True)
    expected = naive_loss(naive.row("published", 3, 5, 0.1), s, y, is_pair, mean=False)
    assert_same_gradients(ours(form, s, y, is_pair), expected, [("s", s)])
    with pytest.raises(ValueError, match="separate_means=True has no sum"):
        Form(LogSum(-1.0), LogSum(1.0), hinge=True, separate_means=True)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_term_without_weight_is_zero_with_zero_gradient(offset: int, dtype: torch.dtype) -> None:
    s = torch.randn(2, 3, dtype=dtype, requires_grad=True)
    weight = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    with torch.no_grad():
        weight[1, 2] = 0.5
    term = LogSum(30.0, 0.2, offset)(s, weight)
    assert float(term[0].detach()) == 0
    assert_near(term[1], (offset + 0.5 * (30 * (s[1, 2].double() - 0.2)).exp()).log())
    gradients = torch.autograd.grad(term.sum(), (s, weight))
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert float(gradients[0][0].abs().max()) == 0 and float(gradients[0][1, 2]) != 0


def test_gradients_reach_the_labels() -> None:
    """A learned λ receives the derivative of eq. 4.9; checked by finite differences."""
    s, step = torch.rand(2, 4, dtype=torch.float64), 1e-5
    y = (0.1 + 0.8 * torch.rand(2, 4, dtype=torch.float64)).requires_grad_()
    direction = torch.randn(2, 4, dtype=torch.float64)
    for name, setting in SETTINGS.items():
        form = TABLE[name](**setting)

        def loss(y: Tensor, form: Form = form) -> Tensor:
            return pair_share(s, y, 1 - y, form).mean()

        with torch.no_grad():
            moved = loss(y + step * direction) - loss(y - step * direction)
        (gradient,) = torch.autograd.grad(loss(y), y)
        assert_close((gradient * direction).sum(), moved / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["BinomialDeviance", "MultiSimilarity", "ProxyAnchor"])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_float32_agrees_with_float64_at_scale_75(name: str, scale: float) -> None:
    """exp(75 · 1.77) overflows float32. Similarities include ±1, and some weights are small."""
    s = torch.tensor([[-1.0, 1.0, 0.77, -0.99], [1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    y = scale * torch.tensor([[0.3, 0.7, 0.5, 0.9], [1e-6, 0.2, 0.5, 1.0], [0.1, 0.2, 0.3, 1e-6]])
    form = TABLE[name](beta=75.0, gamma=75.0, margin=0.77)
    results = []
    for dtype in (torch.float32, torch.float64):
        values = s.to(dtype).requires_grad_()
        loss = pair_share(values, y, scale - y, form).mean()
        results.append((loss.double(), torch.autograd.grad(loss, values)[0].double()))
    (value, gradient), (exact, exact_gradient) = results
    assert bool(gradient.isfinite().all())
    assert_close(value, exact, rtol=1e-6, atol=1e-6)
    assert_close(gradient, exact_gradient, rtol=1e-4, atol=1e-7)
    assert_close(exact, by_hand(name, s.double(), y.double(), scale), rtol=1e-9, atol=1e-9)


def by_hand(name: str, s: Tensor, y: Tensor, scale: float) -> Tensor:
    row, total = naive.row(name, 75, 75, 0.77), torch.zeros((), dtype=torch.float64)
    for a in range(3):
        pulled = sum(y[a, v] * row.rho_pos(s[a, v]) for v in range(4))
        pushed = sum((scale - y[a, v]) * row.rho_neg(s[a, v]) for v in range(4))
        total = total + row.sigma_pos(pulled) + row.sigma_neg(pushed)
    return total / 3


@pytest.mark.parametrize("separate_means", [False, True])
def test_weights_of_anchors_are_repetitions(separate_means: bool) -> None:
    """In both means, weight 2 counts an anchor twice and weight 0 excludes it."""
    s, y, _ = weighted(torch.float64)
    y[0] = 0  # an anchor without positives, so that the two means differ
    form = Form(LogSum(-3.0, 0.1), LogSum(5.0, -0.1), separate_means=separate_means)
    weight, rows = torch.tensor([2, 1, 0, 3, 1]), [0, 0, 1, 3, 3, 3, 4]
    loss = pair_share(s, y, 1 - y, form, "sum", weight).mean()
    repeated = pair_share(s[rows], y[rows], 1 - y[rows], form).mean()
    assert_same_gradients(loss, repeated, [("s", s)])


def test_soft_tau_by_hand(dtype: torch.dtype) -> None:
    s, y, is_pair = weighted(dtype)
    plain = TABLE["NCA"]()
    soft = Form(plain.positive, plain.negative, soft=True)
    row = naive.row("NCA")
    row = naive.Row(
        lambda x: torch.log(1 + torch.exp(x)),
        row.sigma_pos,
        row.sigma_neg,
        row.rho_pos,
        row.rho_neg,
    )
    # log(1 + N/P) is 0 if N is 0, and is omitted if P is 0.
    both = ((y * is_pair).sum(1) > 0) & (((1 - y) * is_pair).sum(1) > 0)
    assert 0 < int(both.sum()) < len(s)
    expected = naive_loss(row, s[both], y[both], is_pair[both], False) * both.sum() / len(s)
    assert_same_gradients(ours(soft, s, y, is_pair), expected, [("s", s)])
    assert not soft.cancels
    for wrong in ({"separate_means": True}, {"hinge": True}):
        with pytest.raises(ValueError, match="τ"):
            Form(LogSum(-1.0), LogSum(1.0), soft=True, **wrong)


def test_half_precision_is_not_summed_in_half_precision() -> None:
    s = torch.rand(3, 50).bfloat16()
    y = torch.rand(3, 50)
    form = TABLE["MultiSimilarity"](18.0, 75.0, 0.77)
    with torch.autocast("cpu", torch.bfloat16):
        loss = pair_share(s, y, 1 - y, form).mean()
    assert loss.dtype == torch.float32
    assert_near(loss, pair_share(s.double(), y.double(), 1 - y.double(), form).mean())


def test_only_ratios_of_equal_sums_cancel() -> None:
    cancel = {name for name, setting in SETTINGS.items() if TABLE[name](**setting).cancels}
    assert cancel == {"NCA", "ProxyNCA", "ProxyNCAPlusPlus"}
    assert not Form(LogSum(1.0, 0.0, 0, -1.0), LogSum(2.0, 0.0, 0)).cancels
    assert not Form(LogSum(1.0, 0.0, 0, -2.0), LogSum(1.0, 0.0, 0)).cancels
    assert not Form(LogSum(1.0, 0.0, 1, -1.0), LogSum(1.0, 0.0, 1)).cancels
    assert not Form(LogSum(1.0, 0.0, 0, -1.0), LogSum(1.0, 0.0, 0), hinge=True).cancels
    assert not Form(Additive(-1.0), Additive(1.0)).cancels
    # with different margins, the gradients are still opposite
    assert Form(LogSum(1.0, 0.3, 0, -1.0), LogSum(1.0, 0.0, 0)).cancels


@pytest.mark.parametrize("normalize", [True, False])
def test_closed_form_equals_similarity_to_mixed_vectors(
    normalize: bool, dtype: torch.dtype
) -> None:
    a, x, other = (torch.randn(6, 4, dtype=dtype, requires_grad=True) for _ in range(3))
    lam = torch.rand(6, dtype=dtype)
    lam[0], lam[1] = 0, 1
    s = mixed_similarity(
        (a * x).sum(1),
        (a * other).sum(1),
        (x * x).sum(1),
        (other * other).sum(1),
        (x * other).sum(1),
        lam,
        normalize,
    )
    rows = []
    for i in range(6):
        v = lam[i].double() * x[i].double() + (1 - lam[i].double()) * other[i].double()
        rows.append(a[i].double() @ (v / v.norm() if normalize else v))
    expected = torch.stack(rows)
    direction = torch.randn(6, dtype=torch.float64)
    leaves = [("a", a), ("x", x), ("x'", other)]
    assert_near(s, expected)
    assert_same_gradients((s * direction.to(dtype)).sum(), expected @ direction, leaves)


def test_evenly_mixed_opposite_embeddings_stay_finite(dtype: torch.dtype) -> None:
    a, x = torch.randn(1, 5, dtype=dtype), torch.randn(1, 5, dtype=dtype)
    a, x = a / a.norm(), (x / x.norm()).requires_grad_()
    one = (x * x).sum(1)
    s = mixed_similarity((a * x).sum(1), -(a * x).sum(1), one, one, -one, 0.5)
    (gradient,) = torch.autograd.grad(s.sum(), x)
    assert float(s.detach().abs()) <= 1 and bool(gradient.isfinite().all())


def single(s: Tensor, lam: Tensor, beta: float, gamma: float, margin: float) -> Tensor:
    """Derivative of eq. 4.16 in s(a, v), by autograd; s and λ are (N,)."""
    s = s.detach().double().requires_grad_()
    form, lam = TABLE["MultiSimilarity"](beta, gamma, margin), lam.double()
    loss = pair_share(s[:, None], lam[:, None], 1 - lam[:, None], form).total
    return torch.autograd.grad(loss, s)[0]


@pytest.mark.parametrize(("beta", "gamma", "margin"), [(18, 75, 0.77), (3, 2, 0.1), (1, 4, -0.2)])
def test_a_mixed_embedding_is_positive_only_below_the_threshold(
    beta: float, gamma: float, margin: float
) -> None:
    """The sign of the derivative (eqs. 4.17 to 4.23), close to the threshold on both sides."""
    lam = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    threshold = positivity_threshold(lam, beta, gamma, margin)
    # λ/(1 - λ) from exponentials, so that logit is not tested against itself
    assert_close(((beta + gamma) * (threshold - margin)).exp(), lam / (1 - lam))
    for step in (1e-6, 1e-3, 0.05):
        assert bool((single(threshold - step, lam, beta, gamma, margin) < 0).all())
        assert bool((single(threshold + step, lam, beta, gamma, margin) > 0).all())


def test_threshold_at_the_ends_of_lambda() -> None:
    ends = positivity_threshold(torch.tensor([0.0, 0.5, 1.0]), 18, 75, 0.77).tolist()
    assert ends == [-float("inf"), pytest.approx(0.77), float("inf")]


@pytest.mark.parametrize(("beta", "gamma", "margin"), [(18, 75, 0.77), (3, 2, 0.3)])
def test_probability_of_being_positive_is_the_cdf_at_the_threshold(
    beta: float, gamma: float, margin: float
) -> None:
    """Eq. 4.14 by Monte Carlo: F_λ from one sample, the sign of the derivative from another."""
    count, probabilities = 20_000, []
    for value in (0.2, 0.4, 0.5, 0.6, 0.8):
        lam = torch.full((count,), value, dtype=torch.float64)
        pulls = single(mixture(count, value), lam, beta, gamma, margin) <= 0
        threshold = float(positivity_threshold(lam[0], beta, gamma, margin))
        predicted = float((mixture(count, value) <= threshold).double().mean())
        deviation = (2 * max(predicted * (1 - predicted), 1e-3) / count) ** 0.5
        assert abs(float(pulls.double().mean()) - predicted) < 5 * deviation
        probabilities.append(predicted)
    assert any(0.2 < p < 0.8 for p in probabilities)  # otherwise any threshold would pass


def mixture(count: int, lam: float) -> Tensor:
    """s(a, v) for v mixed from a positive near the anchor and a negative anywhere."""
    a, n = (naive_unit(torch.randn(count, 8, dtype=torch.float64)) for _ in range(2))
    p = naive_unit(a + 0.35 * torch.randn(count, 8, dtype=torch.float64))
    v = naive_unit(lam * p + (1 - lam) * n)
    return (a * v).sum(1)


def naive_unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def test_nearest_negatives_are_the_most_similar_ones(dtype: torch.dtype) -> None:
    s = torch.randn(6, 9, dtype=dtype)
    negative = torch.rand(6, 9) < 0.6
    negative[:, :2] = True
    negative[0, 2:] = False  # just the two
    found = nearest_negatives(s, negative, 2)
    for a in range(6):
        kept = [i for i in range(9) if negative[a, i]]
        assert found[a].tolist() == sorted(kept, key=lambda i: -float(s[a, i]))[:2]


def test_fewer_nearest_negatives_if_allowed() -> None:
    s, negative = torch.randn(3, 5), torch.zeros(3, 5, dtype=torch.bool)
    negative[0, [1, 3]] = True
    negative[1, 4] = True
    found = nearest_negatives(s, negative, 4, fewer=True)
    assert found.shape == (3, 2)
    assert found[0].tolist() == ([1, 3] if s[0, 1] > s[0, 3] else [3, 1])
    assert found[1, 0] == 4
    assert nearest_negatives(s, torch.zeros_like(negative), 4, fewer=True).shape == (3, 1)
    with pytest.raises(ValueError, match="k=0"):
        nearest_negatives(s, negative, 0, fewer=True)


@pytest.mark.parametrize("k", [3, 0])
def test_too_many_nearest_negatives_raise(k: int) -> None:
    negative = torch.ones(2, 5, dtype=torch.bool)
    negative[1, 2:] = False
    with pytest.raises(ValueError, match=rf"k={k} hardest negatives.*only 2.*smaller k"):
        nearest_negatives(torch.rand(2, 5), negative, k)


def test_inputs_are_not_edited() -> None:
    s, y, is_pair = weighted(torch.float32)
    negative = ~is_pair
    negative[:, 0] = True
    before = [t.detach().clone() for t in (s, y, is_pair, negative)]
    for name, setting in SETTINGS.items():
        ours(TABLE[name](**setting), s, y, is_pair, "mean")
    similarity.nearest_negatives(s, negative, 1)
    for t, copy in zip((s, y, is_pair, negative), before, strict=True):
        assert torch.equal(t, copy)
