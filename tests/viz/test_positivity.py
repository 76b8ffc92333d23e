"""Figure 4.2 shows the measured values."""

from pathlib import Path

import torch
from matplotlib import pyplot as plt

from mixplug.viz import positivity as viz


def test_both_curves_can_be_distinguished_without_color(tmp_path: Path, monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    lam, measured = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.3, 1.0])
    theory = torch.tensor([0.0, 0.6, 1.0])
    viz.figure(lam, measured, theory, tmp_path / "x.png", "the note")
    (figure,) = figures
    first, second = (line for line in figure.axes[0].lines if line.get_marker() != "None")
    drawn = [torch.tensor(line.get_xydata()).float() for line in (first, second)]
    assert torch.equal(drawn[0], torch.stack([lam, measured], 1))
    assert torch.equal(drawn[1], torch.stack([lam, theory], 1))
    assert first.get_linestyle() != second.get_linestyle()
    assert "measured" in first.get_label() and "(4.14)" in second.get_label()
    assert figure.axes[0].get_title() == "the note"
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.undo()
    plt.close(figure)
