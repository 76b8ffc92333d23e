"""The card's numbers by loops, and that what was computed is kept, resumed, and not out of date."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from evaluation import carded
from reference import calibration as by_bins
from torch import nn

from mixplug import numbers, sampling
from mixplug.evaluation.card import Card, Settings, Subject, job, make_card, passes
from mixplug.evaluation.card.lines import lines_of
from mixplug.evaluation.card.parts import Part, parts_of
from mixplug.functional.calibration import negative_log_likelihood
from mixplug.metrics.calibration import cross_scaled

SETTINGS = Settings(batch_size=7, neighbors=3)
TIMELESS = ("clean", "robustness", "calibration", "ood", "representation", "attention")


def timeless(**keys: object) -> Settings:
    return Settings(parts=TIMELESS, batch_size=7, neighbors=3, **keys)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return carded.subject()


@pytest.fixture(scope="module")
def card(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Card:
    return make_card([subject], carded.data(), SETTINGS, tmp_path_factory.mktemp("card"))


def logits_of(subject: Subject, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return subject.network(carded.normalize(pixels))


def known() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = carded.known()
    return images.float() / 255, labels


def test_clean_accuracy_image_by_image(card: Card, subject: Subject) -> None:
    right = 0
    for pixels, label in zip(*known(), strict=True):
        right += int(logits_of(subject, pixels[None]).argmax()) == int(label)
    found = card.results["small"]["clean"]
    assert found["top1"] == pytest.approx(right / carded.COUNT)
    assert 0.4 < found["top1"] < 1  # so that a wrong number would be seen
    assert found["top5"] == 1  # of three classes


@pytest.mark.parametrize(("attack", "steps", "step", "eps"), [("fgsm", 1, 8, 8), ("pgd", 10, 2, 4)])
def test_errors_under_attack_image_by_image(
    card: Card, subject: Subject, attack: str, steps: int, step: float, eps: float
) -> None:
    wrong = 0
    for pixels, label in zip(*known(), strict=True):
        x = pixels.clone()
        for _ in range(steps):
            x.requires_grad_(True)
            loss = F.cross_entropy(subject.network(carded.normalize(x[None])), label[None])
            (slope,) = torch.autograd.grad(loss, x)
            moved = x.detach() + step / 255 * slope.sign()
            x = moved.clamp(pixels - eps / 255, pixels + eps / 255).clamp(0, 1)
        wrong += int(logits_of(subject, x[None]).argmax()) != int(label)
    error = card.results["small"][attack]["error"]
    assert error == pytest.approx(wrong / carded.COUNT)
    assert error > 1 - card.results["small"]["clean"]["top1"]


def test_calibration_by_loops(card: Card, subject: Subject) -> None:
    pixels, labels = known()
    rows = logits_of(subject, pixels).double().softmax(1).tolist()
    found = card.results["small"]["calibration"]
    ece = by_bins.expected_calibration_error(rows, labels.tolist(), 15)
    assert found["ece"] == pytest.approx(ece, abs=1e-6)
    oe = by_bins.overconfidence_error(rows, labels.tolist(), 15)
    assert found["oe"] == pytest.approx(oe, abs=1e-6)
    nll = -sum(math.log(row[y]) for row, y in zip(rows, labels.tolist(), strict=True)) / len(rows)
    assert found["nll"] == pytest.approx(nll, abs=1e-5)
    bins = by_bins.bins_of(rows, labels.tolist(), 15)
    assert found["share"] == pytest.approx([share for share, _, _ in bins], abs=1e-6)
    assert found["accuracy"] == pytest.approx([accuracy for _, accuracy, _ in bins], abs=1e-6)


def test_temperatures_come_from_the_other_half() -> None:
    logits, labels = 4 * torch.randn(40, 3).double(), torch.arange(40) % 3
    scaled, temperatures = cross_scaled(logits, labels, 1)
    ratio = (logits / scaled)[:, 0]
    halves = [torch.isclose(ratio, ratio.new_tensor(t)) for t in temperatures]
    assert [int(half.sum()) for half in halves] == [20, 20]
    assert not bool((halves[0] & halves[1]).any())
    for half, other, fitted in ((halves[0], halves[1], 0), (halves[1], halves[0], 1)):
        grid = [negative_log_likelihood(logits[other] / t, labels[other]) for t in _GRID]
        best = negative_log_likelihood(logits[other] / temperatures[fitted], labels[other])
        assert best <= min(grid) + 1e-9  # of the other half, not of its own
        assert half.sum() == 20


_GRID = torch.logspace(-1, 2, 200, dtype=torch.float64)


def test_outside_by_pairs(card: Card, subject: Subject) -> None:
    pixels, _ = known()
    gray = carded.data().outside[0].dataset.images
    inside = logits_of(subject, pixels).double().softmax(1).max(1).values.tolist()
    outside = logits_of(subject, gray).double().softmax(1).max(1).values.tolist()
    found = card.results["small"]["ood"]["gray"]["max_softmax"]
    wins = sum((a > b) + 0.5 * (a == b) for a in inside for b in outside)
    assert found["auroc"] == pytest.approx(wins / len(inside) / len(outside), abs=1e-6)
    accepted = sum(a >= 0.5 for a in inside) / len(inside)
    rejected = sum(b < 0.5 for b in outside) / len(outside)
    assert found["det_acc"] == pytest.approx((accepted + rejected) / 2)
    assert "det_acc" not in card.results["small"]["ood"]["gray"]["energy"]  # no probability


def test_neighbors_in_the_bank(card: Card, subject: Subject) -> None:
    def embedded(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            maps = subject.network.conv(carded.normalize(pixels)).relu()
        return F.normalize(maps.mean((2, 3)), dim=1)

    images, _ = known()
    bank = embedded(images.flip(3))
    scores = []
    for pixels in (images, carded.data().outside[0].dataset.images):
        distances = torch.cdist(embedded(pixels).double(), bank.double())
        scores.append((-distances.sort(1).values[:, 2]).tolist())
    wins = sum((a > b) + 0.5 * (a == b) for a in scores[0] for b in scores[1])
    auroc = wins / len(scores[0]) / len(scores[1])
    found = card.results["small"]["ood"]["gray"]["knn"]
    assert found["auroc"] == pytest.approx(auroc, abs=1e-3)


def test_without_a_bank_there_are_no_neighbors(subject: Subject, tmp_path: Path) -> None:
    made = make_card([subject], carded.data(bank=False), timeless(), tmp_path)
    assert set(made.results["small"]["ood"]["gray"]) == {"max_softmax", "energy", "max_logit"}


def test_alignment_and_uniformity_by_pairs(card: Card, subject: Subject) -> None:
    pixels, labels = known()
    with torch.no_grad():
        maps = subject.network.conv(carded.normalize(pixels)).relu()
    e = F.normalize(maps.mean((2, 3)), dim=1).double()
    near, all_pairs = [], []
    for i in range(len(e)):
        for j in range(len(e)):
            if i != j:
                square = float((e[i] - e[j]).square().sum())
                all_pairs.append(math.exp(-2 * square))
                if labels[i] == labels[j]:
                    near.append(square)
    found = card.results["small"]["representation"]
    assert found["alignment"] == pytest.approx(sum(near) / len(near), rel=1e-4)
    assert found["uniformity"] == pytest.approx(math.log(sum(all_pairs) / len(all_pairs)), abs=1e-4)
    assert 0 < found["intrusion_distance"] < 4


def test_attention_is_where_the_last_map_is_large(card: Card, subject: Subject) -> None:
    found = card.sketches["small"]["attention"]
    maps = subject.network.conv(carded.normalize(found["images"])).relu()  # (n, 6, 8, 8)
    for attention, z in zip(found["maps"], maps, strict=True):
        raw = torch.zeros(8, 8)
        for row in range(8):
            for column in range(8):
                raw[row, column] = float((z[:, row, column] * z.mean((1, 2))).sum().relu())
        torch.testing.assert_close(attention, raw / raw.sum(), atol=1e-5, rtol=1e-4)


def test_what_was_measured_is_not_measured_again(subject: Subject, tmp_path: Path) -> None:
    first = make_card([subject], carded.data(), timeless(), tmp_path)
    again = carded.data()
    second = make_card([subject], again, timeless(), tmp_path)
    assert second.results == first.results
    assert len(again.test.dataset.read) < carded.COUNT / 4  # a few, to be drawn
    assert not again.outside[0].dataset.read


def test_a_setting_changes_only_what_depends_on_it(subject: Subject, tmp_path: Path) -> None:
    make_card([subject], carded.data(), timeless(), tmp_path)
    again = carded.data()
    attacks = {"fgsm": {"eps": 1 / 255}, "pgd": {"eps": 4 / 255, "step": 2 / 255, "iters": 10}}
    made = make_card([subject], again, timeless(bins=5, attacks=attacks), tmp_path)
    passes = len(again.test.dataset.read) // carded.COUNT
    assert passes == 1  # FGSM; outputs are those of before
    assert len(made.results["small"]["calibration"]["share"]) == 5


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts whose numbers are computed, and not read from the cache."""
    names: list[str] = []

    def watched(*arguments: object) -> list[Part]:
        return [replace(part, compute=partial(note, part)) for part in parts_of(*arguments)]

    def note(part: Part, *arguments: object) -> dict:
        names.append(part.name)
        return part.compute(*arguments)

    monkeypatch.setattr(job, "parts_of", watched)
    return names


def test_a_new_number_appears_in_an_old_folder(
    subject: Subject, tmp_path: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card without OE is continued with OE, and then with another definition of it."""
    numbers.numbers()
    with monkeypatch.context() as patch:
        fewer = {key: n for key, n in numbers._table.items() if key != ("calibration", "oe")}
        patch.setattr(numbers, "_table", fewer)
        old = make_card([subject], carded.data(), timeless(), tmp_path).results["small"]
        assert {"calibration", "clean", "fgsm", "ood"} < set(computed)
        computed.clear()
        make_card([subject], carded.data(), timeless(), tmp_path)
        assert computed == []
    assert "ece" in old["calibration"] and "oe" not in old["calibration"]

    data = carded.data()
    card = make_card([subject], data, timeless(), tmp_path)
    assert computed == ["calibration"]
    assert len(data.test.dataset.read) < carded.COUNT / 4  # a few for figures, not a pass
    found = card.results["small"]
    assert found["calibration"]["oe"] > 0
    assert {**found["calibration"], **old["calibration"]} == found["calibration"]
    assert "OE, %" in [line.label for line in lines_of(card)]

    oe = numbers._table["calibration", "oe"]
    doubled = replace(oe, version=2, function=lambda *diagram: 2 * oe.function(*diagram))
    with monkeypatch.context() as patch:
        patch.setitem(numbers._table, ("calibration", "oe"), doubled)
        newer = make_card([subject], carded.data(), timeless(), tmp_path).results["small"]
    assert computed == ["calibration"] * 2
    assert newer["calibration"]["oe"] == pytest.approx(2 * found["calibration"]["oe"])


@pytest.mark.parametrize("stop", [10, 48 + 20, 2 * 48 + 30])
def test_an_interrupted_card_goes_on(stop: int, subject: Subject, tmp_path: Path) -> None:
    whole = make_card([subject], carded.data(), timeless(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make_card([subject], carded.data(stop), timeless(), tmp_path / "parts")
    rest = carded.data()
    made = make_card([subject], rest, timeless(), tmp_path / "parts")
    assert made.results == whole.results
    batches_done = (stop - 1) // 7 * 7 if stop < 48 else (stop - 1) - (stop - 1) % 7
    assert len(rest.test.dataset.read) <= 3 * 48 - batches_done + 14 + 6


def test_other_weights_are_another_network(subject: Subject, tmp_path: Path) -> None:
    first = make_card([subject], carded.data(), timeless(), tmp_path)
    other = carded.subject("small", 1)
    second = make_card([other], carded.data(), timeless(), tmp_path)
    assert second.results != first.results


def test_an_interruption_while_counting_counts_nothing_twice(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after a batch is written down, and before it is known to be."""
    whole = make_card([subject], carded.data(), timeless(), tmp_path / "whole")
    step = passes._add_attacked
    calls: list[int] = []

    def stopping(*arguments: object) -> None:
        step(*arguments)
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(passes, "_add_attacked", stopping)
    with pytest.raises(KeyboardInterrupt):
        make_card([subject], carded.data(), timeless(), tmp_path / "parts")
    made = make_card([subject], carded.data(), timeless(), tmp_path / "parts")
    assert made.results == whole.results


def test_a_network_that_diverged_has_no_accuracy(tmp_path: Path) -> None:
    network = carded.Small(0)
    with torch.no_grad():
        network.fc.weight[1, 2] = float("nan")
    stages = carded.mixplug.Stages(network.eval(), "conv", "fc", "act")
    one = Subject("lost", stages, carded.normalize, "lost")
    made = make_card([one], carded.data(), timeless(), tmp_path)
    assert made.missing["lost"].keys() >= {"clean", "fgsm", "pgd", "calibration", "ood"}
    assert "not finite: has it diverged?" in made.missing["lost"]["clean"]
    assert not made.results["lost"].get("clean")


def test_last_and_best_of_the_same_weights_are_one(subject: Subject, tmp_path: Path) -> None:
    best = replace(subject, name="best")
    made = make_card([subject, best], carded.data(), timeless(), tmp_path)
    assert made.names == ["small = best"]


def test_a_checkpoint_that_numbers_classes_otherwise_is_refused(
    subject: Subject, tmp_path: Path
) -> None:
    other = replace(subject, classes=("green", "red", "blue"))
    with pytest.raises(ValueError, match="class 0 is green in the checkpoint and red in"):
        make_card([other], carded.data(), timeless(), tmp_path)
    named = replace(subject, classes=("n1", "n2", "n3"))
    made = make_card([named], carded.data(), timeless(), tmp_path)
    assert "classes with other names, such as n1" in made.facts["warnings"][0]


def test_without_a_set_outside_that_part_says_so(subject: Subject, tmp_path: Path) -> None:
    made = make_card([subject], carded.data(sets=()), timeless(), tmp_path)
    assert "no out-of-distribution set" in made.missing["small"]["ood"]


def test_intrusion_by_loops(subject: Subject) -> None:
    e = F.normalize(torch.randn(140, 5), dim=1)
    labels = torch.arange(140) % 4
    state = {"embeddings": 3 * e, "labels": labels, "logits": torch.randn(140, 4)}
    (part,) = [p for p in parts_of(carded.data(), timeless()) if p.name == "representation"]
    found = part.compute(subject, [state])["intrusion_distance"]
    order = sampling.permutation(140, sampling.generators(0, 1, rank=-3).local)[:128]
    source = sampling.generators(0, 0).local
    pair = sampling.permutation(128, source).tolist()
    lam = sampling.beta(1.0, 128, source).tolist()
    clean, known = e[order].double(), labels[order].tolist()
    distances = []
    for i, (j, share) in enumerate(zip(pair, lam, strict=True)):
        mixed = share * clean[i] + (1 - share) * clean[j]
        others = [k for k in range(128) if known[k] not in (known[i], known[j])]
        distances.append(min(float((mixed - clean[k]).square().sum()) for k in others))
    assert found == pytest.approx(sum(distances) / 128, rel=1e-5)  # 12 are left over


def test_top_5_of_many_classes(subject: Subject) -> None:
    logits = torch.arange(8.0).expand(8, 8)  # the larger the class, the surer
    state = {"logits": logits, "labels": torch.arange(8)}
    (part,) = [p for p in parts_of(carded.data(), timeless()) if p.name == "clean"]
    assert part.compute(subject, [state]) == {"top1": 1 / 8, "top5": 5 / 8}


def test_networks_take_turns_when_they_are_timed(tmp_path: Path) -> None:
    seen: list[str] = []
    pair = []
    for name in ("a", "b"):
        one = carded.subject(name, ord(name))
        one.network.register_forward_pre_hook(lambda *_, name=name: seen.append(name))
        pair.append(one)
    settings = Settings(parts=("speed",), batch_size=7)
    made = make_card(pair, carded.data(), settings, tmp_path)
    assert seen[:6] == ["a", "b"] * 3
    assert made.results["a"]["speed"]["batch_size"] == 7
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_is_made_again(subject: Subject, tmp_path: Path) -> None:
    first = make_card([subject], carded.data(), timeless(), tmp_path)
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert make_card([subject], carded.data(), timeless(), tmp_path).results == first.results


def test_without_gradients_only_attacks_are_missing(tmp_path: Path) -> None:
    class Rounded(nn.Linear):
        def forward(self, e: torch.Tensor) -> torch.Tensor:
            return (8 * super().forward(e).detach()).round()  # as quantized networks do

    network = carded.Small(0)
    network.fc = Rounded(6, 3)
    network.eval()
    stages = carded.mixplug.Stages(network, "conv", "fc", "act")
    one = Subject("rounded", stages, carded.normalize, "rounded")
    made = make_card([one, carded.subject()], carded.data(), timeless(), tmp_path)
    assert set(made.missing["rounded"]) == {"fgsm", "pgd"}
    assert "gradient" in made.missing["rounded"]["fgsm"]
    assert made.results["rounded"]["clean"]["top1"] >= 0
    assert not made.missing["small"]


def test_networks_that_do_not_fit_are_refused(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"different names, got \['small', 'small'\]"):
        make_card([subject, carded.subject(seed=1)], carded.data(), timeless(), tmp_path)
    wide = carded.Data(carded.data().test, list("abcd"))
    with pytest.raises(ValueError, match="small has 3 classes and the data 4"):
        make_card([subject], wide, timeless(), tmp_path)


def test_all_is_recorded(card: Card) -> None:
    found = json.loads(json.dumps(card.as_json()))
    assert found["settings"]["seed"] == 0
    assert found["settings"]["attacks"]["pgd"]["iters"] == 10
    assert found["data"]["test"]["images"] == carded.COUNT
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["networks"][0]["fingerprint"] == "small 0"
    assert found["networks"][0]["results"]["speed"]["parameters"] == sum(
        p.numel() for p in nn.Module.parameters(carded.Small(0))
    )


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"parts": ("clear",)}, "parts among"),
        ({"noise": "uniform"}, "noise among"),
        ({"bins": 0}, "bins >= 1, got 0"),
        ({"attacks": {"cw": {}}}, "no attack 'cw', only fgsm, pgd, apgd"),
        ({"attacks": {"pgd": {"iters": 2.5}}}, "iters to be a whole number >= 1, got 2.5"),
        ({"attacks": {"fgsm": {"eps": 8}}}, r"eps in \[0, 1\], .* got 8"),
        ({"ood": [{"name": "a"}]}, "needs the key root"),
        ({"ood": [{"root": "a", "fit": "stretch"}]}, "fit in .* got 'stretch'"),
    ],
)
def test_settings_that_are_refused(keys: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Settings(**keys)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(KeyError, match=r"no key 'atacks'.*attacks"):
        Settings.of({"atacks": {}})
    with pytest.raises(KeyError, match=r"attack 'pgd' has no key 'epsilon'"):
        Settings.of({"attacks": {"pgd": {"epsilon": 1}}})
