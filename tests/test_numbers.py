"""The table of the card's numbers: what it refuses, where a row appears, and its documentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from evaluation import carded
from torch import Tensor

from mixplug import numbers as table
from mixplug.cli.eval.wsol import _SCORES as WSOL
from mixplug.evaluation.card import Card, Settings, make_card
from mixplug.evaluation.card.lines import lines_of
from mixplug.evaluation.card.report import write_card
from mixplug.metrics.calibration import CalibrationMetrics
from mixplug.metrics.ood import SCORES
from mixplug.numbers import SOURCES, Number, ScoreNames, card_number, compute, numbers, scaled

TEXT = (Path(__file__).parents[1] / "docs" / "definitions.md").read_text(encoding="utf-8")
OURS = [number for number in numbers() if number.function.__module__.startswith("mixplug.")]


# ---------------------------------------------------------------- documentation


def definition(text: str, label: str) -> str:
    """The section of docs/definitions.md under a heading."""
    _, found, rest = text.partition(f"\n### {label}\n")
    return rest.partition("\n#")[0] if found else ""


def faults(text: str, number: Number) -> list[str]:
    """What the definition of a number lacks, or says otherwise than the table."""
    found = definition(text, number.label)
    if not found:
        return [f"docs/definitions.md has no heading '### {number.label}'."]
    wanted = [f"Key `{number.name}`"]
    if number.unit:
        wanted.append(f"in {number.unit}")
    directions = {True: "higher is better", False: "lower is better"}
    if number.higher_is_better is not None:
        wanted.append(directions.pop(number.higher_is_better))
    first = found.strip().split("\n\n")[0]
    faulty = [f"{number.label}: {text!r} is missing." for text in wanted if text not in first]
    return faulty + [f"{number.label}: {text!r} is wrong." for text in directions.values()
                     if text in first]  # fmt: skip


@pytest.mark.parametrize("number", OURS, ids=lambda number: f"{number.part}.{number.name}")
def test_definitions_have_every_number(number: Number) -> None:
    assert faults(TEXT, number) == []


def test_a_missing_or_wrong_definition_is_noticed() -> None:
    (ece,) = [number for number in OURS if number.name == "ece"]
    assert "no heading '### ECE'" in faults(TEXT.replace("### ECE", "### EC"), ece)[0]
    assert faults(TEXT.replace("Key `ece`, in %", "Key `ece`"), ece)
    assert faults(TEXT.replace("Key `ece`, in %, lower", "Key `ece`, in %, higher"), ece)


def test_definitions_have_scores_and_localization() -> None:
    for name, score in SCORES.items():
        assert f"| {score.label} | `{name}` |" in TEXT
    for label, key in WSOL.items():
        heading = "top-1 accuracy" if label == "top-1" else label
        assert f"Key `{key}`, in %, higher is better" in definition(TEXT, heading)


# ---------------------------------------------------------------- the table


def test_every_part_and_source_has_a_number() -> None:
    found = {(number.part, number.source) for number in OURS}
    assert found == {(part, source) for part in SOURCES for source in SOURCES[part]}


def test_shares_are_printed_in_percent() -> None:
    values = {"ece": 0.25, "nll": 0.25, "accuracy": 1.0}
    assert scaled("calibration", values) == {"ece": 25.0, "nll": 0.25}
    assert [n.scale for n in OURS if n.name == "parameters"] == [1e-6]


def test_wrong_registrations() -> None:
    keys = {"part": "calibration", "source": "diagram", "label": "ECE"}
    with pytest.raises(ValueError, match=r"'x' needs part/source among .*, got calibration/maps"):
        card_number("x", **{**keys, "source": "maps"})
    with pytest.raises(ValueError, match="got colors/diagram"):
        card_number("x", **{**keys, "part": "colors"})
    with pytest.raises(KeyError, match=r"'ece' of calibration is already .*calibration.ece_of_bin"):
        card_number("ece", **keys)(lambda *_: 0)
    with pytest.raises(KeyError, match=r"'share' .* already registered by the card"):
        card_number("share", **keys)(lambda *_: 0)


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch) -> list[Number]:
    """A number of a plugin for every part and source."""
    numbers()
    monkeypatch.setattr(table, "_table", dict(table._table))
    made = {
        ("clean", "logits"): lambda logits, labels: labels.double(),
        ("robustness", "correct"): lambda correct: correct.double().sum(),
        ("calibration", "diagram"): lambda share, accuracy, confidence: share.max(),
        ("calibration", "probabilities"): margin,
        ("calibration", "logits"): lambda logits, labels: logits.amax(1),
        ("ood", "scores"): lambda inside, outside: inside.mean() - outside.mean(),
        ("ood", "threshold"): lambda inside, outside, threshold: (outside >= threshold).sum(),
        ("representation", "embeddings"): lambda e, labels: len(labels.unique()),
        ("representation", "unlabeled"): lambda e: e.norm(dim=1).mean(),
        ("representation", "mixtures"): lambda mixed, weights, clean, labels: (
            (weights @ clean - mixed).abs().max()
        ),
        ("speed", "timing"): lambda timing: 1000 * timing.seconds / timing.images,
    }
    assert made.keys() == {(part, source) for part in SOURCES for source in SOURCES[part]}
    for (part, source), function in made.items():
        card_number(
            f"my_{source}",
            part=part,
            source=source,
            label=f"my {part} {source}",
            unit="%" if source == "probabilities" else "",
            higher_is_better=source == "probabilities",
            digits=4,
        )(function)
    return [number for number in numbers() if number.name.startswith("my_")]


def margin(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Difference of the two largest probabilities of each example."""
    first, second = probabilities.topk(2).values.unbind(1)
    return first - second


@pytest.fixture
def card(more: list[Number], tmp_path: Path) -> Card:
    settings = Settings(batch_size=16, neighbors=3)
    subjects = [carded.subject("a", 0), carded.subject("b", 1)]
    return make_card(subjects, carded.data(), settings, tmp_path)


def test_a_number_of_a_plugin_is_in_the_whole_card(
    card: Card, more: list[Number], tmp_path: Path
) -> None:
    assert len(more) == sum(map(len, SOURCES.values()))
    files = write_card(card, tmp_path, ["red", "green", "blue"])
    saved, page, markdown = (files[i].read_text(encoding="utf-8") for i in (0, 2, 1))
    lines = {line.label: line for line in lines_of(card)}
    for number in more:
        assert f'"{number.name}"' in saved
        shown = [line for label, line in lines.items() if number.label in label]
        assert shown
        for line in shown:
            assert line.arrow == ("↑" if number.higher_is_better else "↓")
            assert f"| {line.heading} | {' | '.join(bold(line))} |" in markdown
            assert f"<td>{line.label} " in page and all(cell in page for cell in line.cells)
            assert all(len(cell.partition(".")[2]) == 4 for cell in line.cells)


def bold(line: object) -> list[str]:
    pairs = zip(line.cells, line.best, strict=True)
    return [f"**{cell}**" if best else cell for cell, best in pairs]


def test_values_of_a_plugin_in_the_card(card: Card) -> None:
    """Each function gets what its source promises."""
    found = json.loads(json.dumps(card.as_json()))["networks"][0]["results"]
    subject = carded.subject("a", 0)
    images, _ = carded.known()
    with torch.no_grad():
        logits = subject.network(carded.normalize(images.float() / 255)).double()
    rows = logits.softmax(1).tolist()
    assert found["clean"]["my_logits"] == 1  # mean of the classes 0, 1 and 2
    assert found["fgsm"]["my_correct"] == pytest.approx(48 * (1 - found["fgsm"]["error"]))
    assert found["calibration"]["my_diagram"] == max(found["calibration"]["share"])
    margins = [sorted(row)[-1] - sorted(row)[-2] for row in rows]
    assert found["calibration"]["my_probabilities"] == pytest.approx(sum(margins) / 48, rel=1e-5)
    top = [max(row) for row in logits.tolist()]
    assert found["calibration"]["my_logits"] == pytest.approx(sum(top) / 48, rel=1e-5)
    assert "my_logits_scaled" in found["calibration"]
    assert "my_threshold" in found["ood"]["gray"]["max_softmax"]
    assert "my_threshold" not in found["ood"]["gray"]["energy"]
    assert "my_scores" in found["ood"]["gray"]["knn"]
    assert found["representation"]["my_embeddings"] == 3
    assert found["representation"]["my_unlabeled"] == pytest.approx(1)
    assert found["representation"]["my_mixtures"] == pytest.approx(0, abs=1e-6)
    speed = found["speed"]
    assert speed["my_timing"] == pytest.approx(1000 / speed["images_per_second"])
    (line,) = [line for line in lines_of(card) if line.label == "my calibration probabilities, %"]
    assert line.values[0] == 100 * found["calibration"]["my_probabilities"]


def test_a_number_of_a_plugin_is_in_the_accumulator(more: list[Number]) -> None:
    logits, labels = 3 * torch.randn(30, 4).double(), torch.randint(4, (30,))
    metric = CalibrationMetrics(5)
    for rows, y in zip(logits.split(7), labels.split(7), strict=True):
        metric.update_logits(rows, y)
    found = metric.compute()
    assert found["my_logits"] == pytest.approx(float(logits.amax(1).mean()))
    assert found["my_probabilities"] == pytest.approx(
        float(margin(logits.softmax(1), labels).mean())
    )
    assert compute("calibration", "diagram", *metric.diagram())["my_diagram"] == found["my_diagram"]


def test_names_of_scores_follow_the_table(more: list[Number]) -> None:
    class Evaluator:
        higher = ScoreNames("calibration", True)
        lower = ScoreNames("robustness", False, ["fgsm_", "pgd_"])

    assert Evaluator.higher == ("my_probabilities",)
    names = ("fgsm_error", "fgsm_my_correct", "pgd_error", "pgd_my_correct")
    assert Evaluator.lower == Evaluator().lower == names
