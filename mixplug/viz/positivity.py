"""How often a mixed embedding acts as a positive, against λ (Figure 4.2)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mixplug.optional import optional


def figure(lam: Tensor, measured: Tensor, theory: Tensor, path: Path, note: str = "") -> None:
    """Draw and save Pr(Pos(a, v)).

    Args:
        lam: (L,) values of λ.
        measured: (L,) fractions, from the derivative of the loss.
        theory: (L,) fractions, from (4.14).
        path: path of the PNG.
        note: subtitle, such as data and loss.
    """
    plt = optional("matplotlib.pyplot", "demo", "The figure")
    fig, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    axes.axhline(0.5, color="0.8", linewidth=1, zorder=0)
    axes.axvline(0.5, color="0.8", linewidth=1, zorder=0)
    axes.plot(
        lam, measured, color="#0072B2", marker="o", markersize=6, label="measured: ∂ℓ/∂s(a, v) ≤ 0"
    )
    axes.plot(
        lam,
        theory,
        color="#D55E00",
        linestyle="--",
        marker="x",
        markersize=7,
        label="theory (4.14)",
    )
    axes.set(
        xlabel="λ, the weight of the positive",
        ylabel="Pr(Pos(a, v))",
        xlim=(-0.02, 1.02),
        ylim=(-0.03, 1.03),
    )
    fig.suptitle("How often a mixed embedding acts as a positive")
    axes.set_title(note, fontsize=9, color="0.35")
    fig.legend(
        loc="outside lower center", ncols=2, frameon=False
    )  # outside, because curves may be anywhere
    fig.savefig(path, dpi=130)
    plt.close(fig)
