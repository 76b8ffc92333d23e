"""Content of the figure: reliability bins by hand, and mixed examples at both ends of λ."""

import torch
from matplotlib import pyplot as plt

from mixplug.demo.classification import network
from mixplug.stages import Stages
from mixplug.viz import classification as viz


def test_reliability_draws_accuracy_over_confidence() -> None:
    # ten examples with confidence 0.95, nine correct; ten with confidence 0.55, six correct
    rows = torch.tensor([[0.95, 0.05]] * 10 + [[0.55, 0.45]] * 10)
    labels = torch.tensor([0] * 9 + [1] + [0] * 6 + [1] * 4)
    figure = plt.figure()
    viz.reliability(figure, {"method": rows}, labels)
    diagonal, curve = figure.axes[0].lines
    assert list(diagonal.get_xdata()) == [0, 1]
    torch.testing.assert_close(
        torch.tensor(curve.get_xydata()), torch.tensor([[0.55, 0.6], [0.95, 0.9]]).double()
    )
    # ECE: half of the examples differ by +0.05, half by -0.05
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "method, ECE 5.0 %"
    plt.close(figure)


def test_mixed_examples_are_clean_at_the_ends(monkeypatch) -> None:
    images = torch.rand(5, 1, 8, 8)
    model = network().eval()
    decoders = []

    def train_decoder(stages: Stages, images: torch.Tensor) -> torch.nn.Module:
        decoders.append(original(stages, images, steps=2))
        return decoders[-1]

    original = viz.train_decoder
    monkeypatch.setattr(viz, "train_decoder", train_decoder)
    rows = viz.mixed_examples(model, "act", "fc", images, (1, 3))
    pixels = rows["pixels (input mixup)"]
    torch.testing.assert_close(pixels[0], images[1, 0])
    torch.testing.assert_close(pixels[2], (images[1, 0] + images[3, 0]) / 2)
    torch.testing.assert_close(pixels[-1], images[3, 0])
    stages = Stages(model, "act", "fc")
    with torch.no_grad():
        clean = decoders[0](stages(images).embedding)[:, 0].clamp(0, 1)
    first, second = rows["aligned, λA + (1-λ)Ã"][0], rows["aligned, λA' + (1-λ)Ã'"][0]
    torch.testing.assert_close(first, clean[1], atol=1e-5, rtol=1e-5)  # λ = 1 is A itself
    torch.testing.assert_close(second, clean[3], atol=1e-5, rtol=1e-5)  # here it is A' itself
    ends = rows["not aligned"][[0, -1]]
    torch.testing.assert_close(ends, clean[[1, 3]], atol=1e-5, rtol=1e-5)
    assert len(rows) == 4 and all(len(images) == len(viz.LAMBDAS) for images in rows.values())
