"""Dense MultiMix: attention of three digits, and what each weighs in one mixed example."""

from __future__ import annotations

from pathlib import Path

import torch
from common import WIDTH, classifier, plt, save, show

from mixplug import sampling
from mixplug.data import digits
from mixplug.functional import attention_map, dense_weights

CLASSES = (0, 4, 7)


def draw(path: Path, quick: bool) -> None:
    """One mixed example of three at 4 x 4 positions: Λ as drawn, and M̂ after attention."""
    stages = classifier("DenseMultiMix", 1 if quick else 10)
    images, labels = digits("test", size=8)
    x = images[[int((labels == k).nonzero()[1, 0]) for k in CLASSES]]
    with torch.no_grad():
        _, a = stages.with_map(x, stages.last)
    grid = a.shape[-2:]
    attention = attention_map(a.flatten(2))
    draws = sampling.generators(0, 1).local
    drawn = sampling.hull_weights(1, len(x), positions=attention.shape[1], generator=draws)
    m_hat, s = dense_weights(drawn, attention)
    columns = {
        "image": x[:, 0],
        "attention a": attention.unflatten(1, grid),
        "drawn Λ": drawn[0].unflatten(1, grid),
        "weight M̂": m_hat[0].unflatten(1, grid),
    }
    fig, axes = plt.subplots(4, 4, figsize=(WIDTH, 4.4), layout="constrained")
    for column, (name, values) in enumerate(columns.items()):
        for row, one in enumerate(values):
            options = {"cmap": "gray"} if column == 0 else {"cmap": "viridis", "vmin": 0}
            top = {"image": None, "attention a": float(attention.max())}.get(name, 1.0)
            show(axes[row, column], one, name if row == 0 else "", vmax=top, **options)
    for cell in axes[3, :3]:
        cell.axis("off")
    show(axes[3, 3], s[0].unflatten(0, grid), "", cmap="magma", vmin=0)
    label = axes[3, 2].text(
        1.05, 0.5, "what each position\nweighs in the loss, s", ha="right", va="center",
        transform=axes[3, 2].transAxes,
    )  # fmt: skip
    label.set_in_layout(False)  # it is wider than its cell
    save(fig, path)
