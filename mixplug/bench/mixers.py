"""``mixplug bench mixers``: heads, steps, probes, Sinkhorn and import, compared with bounds."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import mixplug
from mixplug import functional as MF
from mixplug import sampling
from mixplug.bench.measure import Row, in_turns, peak_bytes, ratio
from mixplug.models import preact_resnet18

Tick = Callable[[], None]
_HEAVY = ("timm", "mmengine", "faiss")


def head_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """A linear head alone, forward and backward: mixed logits compared with mixed embeddings."""
    for n, bound in ((1000, 5.0), (10_000, 7.0)):
        plain, fast, memory = _multimix_head(device, batch=128, width=2048, classes=1000, n=n)
        seconds = in_turns({"plain": plain, "fast": fast}, rounds, tick)
        times = ratio(seconds["plain"], seconds["fast"])
        yield Row(f"MultiMix head, b=128 D=2048 K=1000 n={n}", times, bound, True, "x")
        if device.type == "cpu":
            share = peak_bytes(memory) / (4 * n * 1000)
            yield Row(f"  its peak extra memory, n={n}", share, 2.0, False, "nK floats")
    plain, fast, linear = _dense_head(device, 64, 2048, classes=1000, n=256, positions=49)
    calls = {"plain": plain, "fast": fast, "linear": linear}
    seconds = in_turns(calls, max(2, rounds // 2), tick)
    times = ratio(seconds["plain"], seconds["fast"])
    note = f"1x1 convolution (5.3.3); {ratio(seconds['linear'], seconds['fast']):.3g} x to a linear"
    yield Row("DenseMultiMix head, b=64 r=49 n=256", times, 5.0, True, "x", note)


def step_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """Forward and backward of PreActResNet-18 on 32x32, b=128, K=100, relative to no mixup."""
    model = preact_resnet18(num_classes=100).to(device).train()
    stages = mixplug.Stages(model, features="stages.3.0", classifier="fc", last="act")
    x = torch.randn(128, 3, 32, 32, device=device)
    y = torch.randint(100, (128,), device=device)

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    def mixed(spec: dict) -> Callable[[], None]:
        mixer, steps = mixplug.build(spec), iter(range(1 << 30))

        def step() -> None:
            model.zero_grad()
            mixer(stages, x, y, sampling.generators(0, next(steps))).loss().backward()

        return step

    modes = ("x", "A", "A'", "e")
    calls = {"plain": plain, "MultiMix": mixed({"type": "MultiMix", "prob": 1.0})}
    calls["DenseMultiMix"] = mixed({"type": "DenseMultiMix", "prob": 1.0})
    calls |= {mode: mixed({"type": "AlignMixup", "modes": (mode,)}) for mode in modes}
    calls["again"] = plain  # shows the noise of the machine: its true ratio is 1
    seconds = in_turns(calls, rounds, tick)
    noise = ratio(seconds["again"], seconds["plain"])
    note = f"no mixup {1e3 * min(seconds['plain']):.0f} ms, and {noise:.3f} x to itself"
    for name, bound, thesis in (("MultiMix", 1.03, "1.01"), ("DenseMultiMix", 1.06, "1.23")):
        times = ratio(seconds[name], seconds["plain"])
        yield Row(f"{name} step", times, bound, False, "x", f"{note}; thesis {thesis} on its GPU")
    times = sum(ratio(seconds[mode], seconds["plain"]) for mode in modes) / len(modes)
    yield Row("AlignMixup step, mean of modes", times, 1.06, False, "x", "thesis 1.08 on its GPU")


def probe_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """A probe beside a training step, with and without an input gradient, relative to that step."""
    model = preact_resnet18(num_classes=100).to(device).train()
    stages = mixplug.Stages(model, features="stages.3.0", classifier="fc", last="act")
    x = torch.randn(128, 3, 32, 32, device=device)
    y = torch.randint(100, (128,), device=device)

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    calls = {
        "step": step,
        "input_grad": lambda: stages.probe(x, y, {"input_grad"}),
        "logits": lambda: stages.probe(x, want={"logits"}),
    }
    seconds = in_turns(calls, rounds, tick)
    note = f"step of PreActResNet-18 {1e3 * min(seconds['step']):.0f} ms"
    for name, bound in (("input_grad", 0.75), ("logits", 0.4)):
        times = ratio(seconds[name], seconds["step"])
        yield Row(f"probe for {name}, of a training step", times, bound, False, "x", note)


def sinkhorn_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """128 plans, 100 iterations, costs up to 500, compared with a log-sum-exp loop."""
    for size in (16, 49):
        points = torch.randn(2, 128, 64, size, device=device)
        cost = MF.squared_distances(points[0], points[1])
        cost = cost * (500 / cost.max())
        calls = {
            "plain": lambda cost=cost: log_sum_exp_loop(cost, 0.1, 100),
            "fast": lambda cost=cost: MF.sinkhorn(cost, 0.1, 100),
        }
        seconds = in_turns(calls, rounds, tick)
        times = ratio(seconds["plain"], seconds["fast"])
        yield Row(f"Sinkhorn, 128 plans of {size}x{size}, 100 iterations", times, 2.0, True, "x")
        exact = log_sum_exp_loop(cost.double(), 0.1, 100)
        error = float((calls["fast"]() - exact).abs().max())
        yield Row(f"  its distance from the loop in float64, {size}x{size}", error, 1e-5, False)


def import_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """``import mixplug`` in a fresh interpreter."""
    code = (
        "import time; t = time.perf_counter(); import mixplug, sys; "
        f"print(time.perf_counter() - t, *[m for m in {_HEAVY} if m in sys.modules])"
    )
    words = []
    for _ in range(rounds):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        words.append(run.stdout.split())
        tick()
    heavy = words[0][1:]
    note = f"loads {', '.join(heavy)}" if heavy else "loads none of " + ", ".join(_HEAVY)
    yield Row("import mixplug", min(float(w[0]) for w in words), 1.5, False, "s", note)


GROUPS = {
    "head": head_rows,
    "step": step_rows,
    "probe": probe_rows,
    "sinkhorn": sinkhorn_rows,
    "import": import_rows,
}


def log_sum_exp_loop(cost: Tensor, eps: float, iters: int) -> Tensor:
    """The plain form of :func:`mixplug.functional.sinkhorn`."""
    n, m = cost.shape[-2:]
    log_kernel = -cost / eps
    v = cost.new_zeros(*cost.shape[:-2], m)
    for _ in range(iters):
        u = -math.log(n) - torch.logsumexp(log_kernel + v[..., None, :], -1)
        v = -math.log(m) - torch.logsumexp(log_kernel + u[..., :, None], -2)
    return torch.exp(log_kernel + u[..., :, None] + v[..., None, :])


def _multimix_head(
    device: torch.device, batch: int, width: int, classes: int, n: int
) -> tuple[Callable, Callable, Callable]:
    z, weight, bias, y = _head(device, (batch, width), classes)
    lam = sampling.hull_weights(n, batch).to(device)

    def plain() -> None:
        mixed, target = MF.multimix(z, y, lam)
        MF.soft_cross_entropy(F.linear(mixed, weight, bias), target).backward()

    def fast() -> None:
        MF.hull_cross_entropy(F.linear(z, weight, bias), y, lam).backward()

    logits = F.linear(z, weight, bias).detach().requires_grad_()
    return plain, fast, lambda: MF.hull_cross_entropy(logits, y, lam).backward()


def _dense_head(
    device: torch.device, batch: int, width: int, classes: int, n: int, positions: int
) -> tuple[Callable, Callable, Callable]:
    z, weight, bias, y = _head(device, (batch, width, positions), classes)
    lam = sampling.hull_weights(n, batch, positions=positions).to(device)
    attention = MF.attention_map(z.relu())

    def plain() -> None:
        mixed, target, s = MF.dense_multimix(z, y, lam, attention)
        logits = F.conv1d(mixed, weight[..., None], bias)
        terms = -(target * F.log_softmax(logits, 1)).sum(1)
        (terms * (s / s.sum(0) / positions)).sum().backward()

    def linear() -> None:
        mixed, target, s = MF.dense_multimix(z, y, lam, attention)
        logits = F.linear(mixed.mT, weight, bias)
        terms = -(target.mT * F.log_softmax(logits, -1)).sum(-1)
        (terms * (s / s.sum(0) / positions)).sum().backward()

    def fast() -> None:
        m_hat, s = MF.dense_weights(lam, attention)
        logits = F.linear(z.mT, weight, bias).transpose(0, 1)
        coefficient = (s / s.sum(0) / positions).T
        MF.hull_cross_entropy(logits, y, m_hat.permute(2, 0, 1), coefficient).backward()

    return plain, fast, linear


def _head(
    device: torch.device, shape: tuple[int, ...], classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z = torch.randn(shape, device=device, requires_grad=True)
    weight = torch.randn(classes, shape[1], device=device).mul_(shape[1] ** -0.5).requires_grad_()
    bias = torch.zeros(classes, device=device, requires_grad=True)
    return z, weight, bias, F.one_hot(torch.randint(classes, shape[:1]), classes).float().to(device)
