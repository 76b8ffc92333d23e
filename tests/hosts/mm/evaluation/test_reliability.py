"""Evaluators of reliability in mmengine's Runner, against the functions on the same network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmpretrain
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hosts.hosting import mm_classifier, mm_config
from hosts.learners import metric_config
from hosts.two_evaluators import evaluated, with_noise, work
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import DATASETS, METRICS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from PIL import Image
from torch import Tensor
from two_processes import in_both

import mixplug.mm  # noqa: F401  registers
from mixplug import numbers, sampling
from mixplug.data.digits import digits
from mixplug.functional import (
    alignment,
    apgd,
    expected_calibration_error,
    fgsm,
    negative_log_likelihood,
    overconfidence_error,
    pgd,
    uniformity,
)
from mixplug.functional import ood as scores
from mixplug.hosts.mm.datasets.outside import OODFolder, OODNoise
from mixplug.hosts.mm.evaluation.reliability import CalibrationError, EmbeddingQuality, OODDetection
from mixplug.hosts.mm.evaluation.robustness import RobustAccuracy
from mixplug.metrics.embeddings import embedding_numbers
from mixplug.metrics.ood import ood_scores

mmpretrain.utils.register_all_modules(init_default_scope=False)

ROBUST = {"type": "mixplug.RobustAccuracy"}
EPS = {"fgsm": {"eps": 15 / 255}, "pgd": {"eps": 12 / 255, "step": 4 / 255, "iters": 4}}


def logits_of(model: ImageClassifier, pixels: Tensor) -> Tensor:
    """Logits of pixels in [0, 1], by the numbers of the config."""
    return model.head(model.extract_feat((255 * pixels - 78) / 85))


def test_images() -> tuple[Tensor, Tensor]:
    """The 50 digits of the config, in [0, 1]."""
    images, labels = digits("test", 8)
    gray = (images[:50] * 255).round() / 255
    return gray.expand(-1, 3, -1, -1), labels[:50]


test_images.__test__ = False


def build(**changes: Any) -> ImageClassifier:
    """A network whose BatchNorm has seen something, so that it is not as good as constant."""
    model = MODELS.build({**mm_classifier(**changes), "_scope_": "mmpretrain"})
    model.init_weights()
    model.train()(torch.randn(32, 3, 8, 8))
    return model.eval()


def told(metric: Any, model: ImageClassifier) -> Any:
    metric.attach(SimpleNamespace(model=model))
    return metric


def step(model: ImageClassifier, images: Tensor, labels: list[int]) -> tuple[dict, list[dict]]:
    """What a loop hands to evaluators of a batch (B, C, H, W) as a pipeline would make it."""
    given = {"inputs": list(images)}
    with torch.no_grad():
        found = model(model.data_preprocessor(given, False)["inputs"], mode="tensor").softmax(1)
    return given, [
        {"gt_label": torch.tensor([label]), "pred_score": score}
        for label, score in zip(labels, found, strict=True)
    ]


# ---------------------------------------------------------------- values in the Runner


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageClassifier, dict[str, float]]:
    """A network that knows digits somewhat, and what all evaluators say of it, among noise."""
    config = mm_config(tmp_path_factory.mktemp("run"), epochs=12)
    config.optim_wrapper = {"optimizer": {"type": "AdamW", "lr": 0.003}}
    config.param_scheduler = None
    config.train_cfg.val_interval = 12
    config.train_dataloader.dataset.pipeline = [{"type": "PackInputs"}]
    config.default_hooks.checkpoint.interval = 100
    config.val_dataloader.dataset = with_noise(50, 20)
    config.val_evaluator = [
        {**ROBUST, "attack": "fgsm", **EPS["fgsm"]},  # first: it runs the network in between
        {**ROBUST, "attack": "pgd", **EPS["pgd"]},
        {"type": "mixplug.OODDetection"},
        {"type": "mixplug.OODDetection", "score": "energy", "prefix": "energy"},
        {"type": "mixplug.OODDetection", "score": "max_logit", "prefix": "max_logit"},
        {"type": "mixplug.CalibrationError", "bins": 5, "temperature_scaling": True},
        {"type": "mixplug.CalibrationError", "prefix": "plain"},
        {"type": "mixplug.EmbeddingQuality"},
        {"type": "mixplug.InDistribution", "metric": {"type": "Accuracy", "topk": (1, 3)}},
    ]
    runner = Runner.from_cfg(config)
    record = Record()
    runner.register_hook(record)
    runner.train()
    return runner.model.eval(), record.found[-1]


class Record(Hook):
    """What every evaluation found."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.found.append(dict(metrics or {}))


def test_calibration_is_that_of_the_functions(run: tuple) -> None:
    model, found = run
    x, y = test_images()
    with torch.no_grad():
        logits = logits_of(model, x)
    for prefix, bins in (("", 5), ("plain/", 15)):
        for name, error in (("ece", expected_calibration_error), ("oe", overconfidence_error)):
            expected = 100 * float(error(logits.softmax(1), y, bins))
            assert found[prefix + name] == pytest.approx(expected, rel=1e-4)
            assert 0 < found[prefix + name] < 100
    assert found["temperature"] > 0 and found["ece_scaled"] != found["ece"]
    nll = negative_log_likelihood(logits, y)
    assert found["nll"] == pytest.approx(float(nll), rel=1e-4) and "plain/nll" not in found
    assert "plain/temperature" not in found


def test_each_half_has_the_temperature_of_the_other(run: tuple) -> None:
    from mixplug.metrics.calibration import cross_scaled

    model, found = run
    x, y = test_images()
    with torch.no_grad():
        scaled, temperatures = cross_scaled(logits_of(model, x).double(), y, 0)
    assert len(temperatures) == 2
    assert found["temperature"] == pytest.approx(sum(temperatures) / 2, rel=1e-3)
    expected = expected_calibration_error(scaled.softmax(1), y, 5)
    assert found["ece_scaled"] == pytest.approx(100 * float(expected), rel=1e-3)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_errors_under_attack_are_those_of_the_functions(run: tuple, attack: str) -> None:
    model, found = run
    x, y = test_images()
    run_attack = {"fgsm": fgsm, "pgd": pgd}[attack]
    attacked = run_attack(lambda pixels: logits_of(model, pixels), x, y, **EPS[attack])
    with torch.no_grad():
        right = (logits_of(model, attacked).argmax(1) == y).double().mean()
        clean = (logits_of(model, x).argmax(1) == y).double().mean()
    assert found[f"{attack}_error"] == pytest.approx(100 * float(1 - right))
    assert right < clean < 1
    assert found["accuracy/top1"] == pytest.approx(100 * float(clean))  # without the noise


def test_detection_is_that_of_the_functions(run: tuple) -> None:
    model, found = run
    x, _ = test_images()
    drawn = OODNoise(count=20, size=8).images
    noise = torch.stack([(image * 255).round() / 255 for image in drawn])
    with torch.no_grad():
        known, unknown = logits_of(model, x), logits_of(model, noise)
    for prefix, score in (
        ("", scores.max_softmax),
        ("energy/", scores.energy),
        ("max_logit/", scores.max_logit),
    ):
        at = None if prefix else 0.5
        expected = ood_scores(score(known), score(unknown), at)
        del expected["threshold_best"]
        ours = {name: found[prefix + name] for name in expected}
        assert ours == pytest.approx({name: 100 * v for name, v in expected.items()}, abs=1e-3)
    assert "det_acc" in found and "energy/det_acc" not in found
    assert 0 < found["auroc"] < 100


def test_embeddings_are_those_before_the_last_layer(run: tuple) -> None:
    model, found = run
    x, y = test_images()
    with torch.no_grad():
        e = F.normalize(model.extract_feat((255 * x - 78) / 85)[-1])
    assert found["alignment"] == pytest.approx(float(alignment(e, y)), rel=1e-4)
    assert found["uniformity"] == pytest.approx(float(uniformity(e)), rel=1e-4)
    distance = embedding_numbers(e, y, 0)["intrusion_distance"]
    assert found["intrusion_distance"] == pytest.approx(distance, rel=1e-4)


def test_two_ranks_find_what_one_does(tmp_path: Path) -> None:
    """51 images of digits and noise: one rank gets an image twice, and it counts once."""
    alone = evaluated(tmp_path / "alone")
    first, second = in_both(work, tmp_path)
    assert first == second == pytest.approx(alone, abs=1e-4)
    assert set(alone) >= {"ece", "ece_scaled", "auroc", "fgsm_error", "alignment", "accuracy/top1"}


def test_the_best_checkpoint_has_the_smallest_error(tmp_path: Path) -> None:
    config = mm_config(tmp_path, epochs=3)
    config.val_evaluator = [{"type": "mixplug.CalibrationError"}, {"type": "Accuracy"}]
    config.default_hooks.checkpoint.save_best = "auto"
    runner, record = Runner.from_cfg(config), Record()
    runner.register_hook(record)
    runner.train()
    errors = [found["ece"] for found in record.found]
    best = 1 + errors.index(min(errors))
    assert [p.name for p in tmp_path.glob("best_*")] == [f"best_ece_epoch_{best}.pth"]


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("ece", "less"), ("oe", "less"), ("ece_scaled", "less"), ("auroc", "greater"),
        ("aupr_out", "greater"), ("fpr95", "less"), ("det_acc_best", "greater"),
        ("fgsm_error", "less"), ("pgd_error", "less"), ("energy/auroc", "greater"),
        ("scaled/nll_scaled", "less"), ("alignment", "less"), ("uniformity", "less"),
        ("intrusion_distance", "greater"),
    ],
)  # fmt: skip
def test_checkpoints_know_which_way_is_better(key: str, rule: str) -> None:
    hook = CheckpointHook(save_best=key)
    assert hook.rules == [rule]


def test_an_average_of_weights_is_what_is_looked_into(tmp_path: Path) -> None:
    hook = {"type": "EMAHook", "ema_type": "ExponentialMovingAverage", "momentum": 0.25}
    config = mm_config(tmp_path, custom_hooks=[hook])
    config.val_evaluator = [{**ROBUST, **EPS["fgsm"]}, {"type": "mixplug.EmbeddingQuality"}]
    runner, record = Runner.from_cfg(config), Record()
    runner.register_hook(record)
    runner.train()
    model = build()
    saved = torch.load(tmp_path / "epoch_1.pth", weights_only=False)["state_dict"]
    model.load_state_dict(saved)  # mmengine saves the average there
    x, y = test_images()
    e = F.normalize(model.extract_feat((255 * x - 78) / 85)[-1].detach())
    assert record.found[0]["alignment"] == pytest.approx(float(alignment(e, y)), rel=1e-4)
    changed = fgsm(lambda pixels: logits_of(model, pixels), x, y, **EPS["fgsm"])
    right = (logits_of(model, changed).argmax(1) == y).double().mean()
    assert record.found[0]["fgsm_error"] == pytest.approx(100 * float(1 - right))


# ---------------------------------------------------------------- one batch by hand


def test_colors_go_through_the_preprocessor_in_its_order() -> None:
    """A BGR image, means per color and padding: what the attack changes is the image itself."""
    preprocessor = {
        "mean": [120, 60, 30],
        "std": [50, 60, 70],
        "to_rgb": True,
        "pad_size_divisor": 4,
    }
    model = build(data_preprocessor=preprocessor)
    images = torch.randint(256, (9, 3, 7, 6), dtype=torch.uint8)
    mean, std = (torch.tensor(preprocessor[k]).view(3, 1, 1) for k in ("mean", "std"))

    def logits(pixels: Tensor) -> Tensor:
        rgb = (255 * pixels[:, [2, 1, 0]] - mean) / std
        return model.head(model.extract_feat(F.pad(rgb, (0, 2, 0, 1))))

    labels = logits(images / 255).argmax(1)
    labels[0] = (labels[0] + 1) % 10  # wrong as it is
    expected = logits(fgsm(logits, images / 255, labels, 0.003)).argmax(1) == labels
    metric = told(RobustAccuracy(eps=0.003), model)
    metric.process(*step(model, images, labels.tolist()))
    assert [right for right, _ in metric.results] == expected.tolist()
    found = metric.compute_metrics(metric.results)
    assert found == {"fgsm_error": pytest.approx(100 * float(1 - expected.double().mean()))}
    assert 0 < found["fgsm_error"] < 100 and not metric.results[0][0]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_images_that_are_floats_need_a_white(white: float) -> None:
    model = build(data_preprocessor={"mean": [0.4 * white] * 3, "std": [0.3 * white] * 3})
    images = torch.rand(6, 3, 8, 8)
    labels = model(model.data_preprocessor({"inputs": images * white})["inputs"]).argmax(1)

    def logits(pixels: Tensor) -> Tensor:
        return model.head(model.extract_feat((pixels - 0.4) / 0.3))

    expected = (logits(fgsm(logits, images, labels, 0.02)).argmax(1) == labels).tolist()
    batch = step(model, images * white, labels.tolist())
    metric = told(RobustAccuracy(eps=0.02, white=white), model)
    metric.process(*batch)
    assert [right for right, _ in metric.results] == expected
    with pytest.raises(ValueError, match=r"white=255 or white=1\), got torch\.float32\."):
        told(RobustAccuracy(), model).process(*batch)


def test_random_starts_have_draws_of_their_own() -> None:
    model = build()
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    batch = step(model, images, [0, 1, 2, 3, 4])
    y = torch.arange(5)
    seen: list[Tensor] = []

    def spy(metric: RobustAccuracy) -> RobustAccuracy:
        plain = metric.logits
        metric.logits = lambda pixels: seen.append(pixels.detach()) or plain(pixels)
        return metric

    keys = {"attack": "pgd", "iters": 1, "eps": 0.1, "random_start": True}
    state = torch.get_rng_state()
    for seed in (0, 0, 1):
        metric = spy(told(RobustAccuracy(seed=seed, **keys), model))
        metric.process(*batch)
        metric.process(*batch)
    starts = seen[::2]  # the other one is what is classified
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(starts[0], starts[2]) and torch.equal(starts[1], starts[3])
    assert not torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[4])
    key = sampling.key(sampling.generators(0, 0).local)
    source = sampling.generator(key, torch.device("cpu"))
    expected = pgd(
        lambda pixels: logits_of(model, pixels),
        images / 255, y, eps=0.1, iters=1, random_start=True, generator=source,
    )  # fmt: skip
    assert torch.allclose(seen[1], expected)


def test_apgd_is_torchattacks() -> None:
    model = build()
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    labels = logits_of(model, images / 255).argmax(1)
    seed = sampling.key(sampling.generators(7, 0).local) % (1 << 31)
    changed = apgd(lambda pixels: logits_of(model, pixels), images / 255, labels, 0.05, 3, seed)
    metric = told(RobustAccuracy("apgd", seed=7, eps=0.05, iters=3), model)
    metric.process(*step(model, images, labels.tolist()))
    right = logits_of(model, changed).argmax(1) == labels
    assert [row[0] for row in metric.results] == right.tolist()


def test_the_latest_batch_is_not_that_of_training_or_of_an_attack() -> None:
    model = build()
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    quality, robust = told(EmbeddingQuality(), model), told(RobustAccuracy(), model)
    batch = step(model, images, [0, 0, 1, 1])
    expected = F.normalize(model.extract_feat((images.float() - 78) / 85)[-1].detach())
    robust.process(*batch)
    model.train()(torch.randn(4, 3, 8, 8), mode="tensor")
    model.eval()
    quality.process(*batch)
    kept = torch.from_numpy(np.stack([row for row, _ in quality.results]))
    assert torch.allclose(F.normalize(kept), expected, atol=1e-6)


def test_sure_and_wrong_by_hand() -> None:
    """Two of three at 0.8 are right: |2/3 - 0.8|; that at 0.6 is wrong: 0.6. One has no class."""
    metric = CalibrationError(10)
    rows = [([0.8, 0.2], 0), ([0.2, 0.8], 1), ([0.8, 0.2], 1), ([0.4, 0.6], 0)]
    samples = [{"pred_score": torch.tensor(p), "gt_label": torch.tensor([y])} for p, y in rows]
    metric.process(None, [*samples, {**samples[0], "role": "ood"}])
    found = metric.compute_metrics(metric.results)
    assert found["ece"] == pytest.approx(100 * (0.75 * (0.8 - 2 / 3) + 0.25 * 0.6), rel=1e-5)
    oe = 0.75 * 0.8 * (0.8 - 2 / 3) + 0.25 * 0.6 * 0.6
    assert found["oe"] == pytest.approx(100 * oe, rel=1e-5)
    assert "nll" not in found  # which needs logits


def test_numbers_of_plugins_are_evaluated(
    run: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered long after mixplug.mm was imported, and all the same ranked by save_best."""
    numbers.numbers()
    monkeypatch.setattr(numbers, "_table", dict(numbers._table))
    for hook in (CheckpointHook,):
        for key in ("_default_greater_keys", "_default_less_keys"):
            monkeypatch.setattr(hook, key, list(getattr(hook, key)))
    keys = {"label": "", "higher_is_better": False}
    for part, source, function in (
        ("calibration", "probabilities", lambda p, y: 1 - p.amax(1)),
        ("calibration", "logits", lambda z, y: z.amax(1)),
        ("robustness", "correct", lambda correct: correct.sum()),
        ("ood", "scores", lambda inside, outside: len(outside)),
        ("representation", "unlabeled", lambda e: e.norm(dim=1).sum()),
    ):
        numbers.card_number(f"my_{source}", part=part, source=source, **keys)(function)
    config = mm_config(tmp_path)
    config.val_dataloader.dataset = with_noise(50, 20)
    config.val_evaluator = [
        {"type": "mixplug.CalibrationError"},
        {"type": "mixplug.CalibrationError", "temperature_scaling": True, "prefix": "scaled"},
        {"type": "mixplug.OODDetection"},
        {"type": "mixplug.EmbeddingQuality"},
        {**ROBUST, **EPS["fgsm"]},
    ]
    config.default_hooks.checkpoint.save_best = "my_probabilities"
    runner, record = Runner.from_cfg(config), Record()
    runner.register_hook(record)
    runner.train()
    found = record.found[-1]
    assert found["my_probabilities"] == pytest.approx(found["scaled/my_probabilities"], abs=1e-5)
    assert 0 < found["my_probabilities"] < 1
    assert found["scaled/my_logits_scaled"] != found["scaled/my_logits"]
    assert "my_logits" not in found
    assert found["fgsm_my_correct"] == pytest.approx(50 - found["fgsm_error"] / 2)
    assert found["my_scores"] == 20
    assert found["my_unlabeled"] == pytest.approx(50)
    assert len(list(tmp_path.glob("best_my_probabilities_*"))) == 1


# ---------------------------------------------------------------- data


def test_a_folder_of_images_is_out_of_distribution(tmp_path: Path) -> None:
    colors = {"b.png": (10, 20, 30), "deep/er/a.png": (1, 2, 3), "c.txt": None}
    for name, color in colors.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if color:
            Image.new("RGB", (12, 10), color).save(path)
        else:
            path.write_text("no image")
    init_default_scope("mmpretrain")
    spec = {"type": "mixplug.OODFolder", "data_root": str(tmp_path), "size": 8,
            "pipeline": [{"type": "PackInputs"}]}  # fmt: skip
    data = DATASETS.build(spec)
    assert len(data) == 2
    first, second = data[0], data[1]
    assert first["inputs"].shape == (3, 8, 8) and first["inputs"].dtype == torch.uint8
    assert first["inputs"][:, 0, 0].tolist() == [30, 20, 10]
    assert second["inputs"][:, 0, 0].tolist() == [3, 2, 1]
    assert first["data_samples"].to_dict()["role"] == "ood"
    assert int(first["data_samples"].gt_label) == 0
    rgb = DATASETS.build({**spec, "channel_order": "rgb", "indices": [1]})
    assert len(rgb) == 1 and rgb[0]["inputs"][:, 0, 0].tolist() == [1, 2, 3]
    plain = OODFolder(str(tmp_path))
    assert plain[0]["img"].shape == (10, 12, 3) and plain[0]["img_shape"] == (10, 12)
    with pytest.raises(ValueError, match=r"a channel_order in \('bgr', 'rgb'\), got 'gbr'"):
        OODFolder(str(tmp_path), channel_order="gbr")
    with pytest.raises(ValueError, match="There is no folder"):
        OODFolder(str(tmp_path / "missing"))


def test_noise_is_out_of_distribution() -> None:
    data = OODNoise("gaussian", 3, (4, 6), seed=2)
    image = (data.images[1] * 255).round().byte()
    assert len(data) == 3 and torch.equal(torch.from_numpy(data[1]["img"]).permute(2, 0, 1), image)
    with pytest.raises(ValueError, match="uniform, gaussian; got 'pink'"):
        OODNoise("pink")


# ---------------------------------------------------------------- what is refused


def test_another_model_is_refused(tmp_path: Path) -> None:
    config = metric_config(tmp_path)
    config.val_evaluator = {"type": "mixplug.EmbeddingQuality"}
    with pytest.raises(ValueError, match=r"looks into mmpretrain's ImageClassifier .* got Me"):
        Runner.from_cfg(config).val()
    with pytest.raises(ValueError, match="ImageClassifier with a head, got ImageClassifier"):
        told(EmbeddingQuality(), MODELS.build(mm_classifier(head=None, _scope_="mmpretrain")))
    config = mm_config(tmp_path)
    config.model.head = {"type": "ClsHead"}
    config.val_evaluator = {"type": "mixplug.OODDetection"}
    with pytest.raises(ValueError, match="ClsHead has no layer with num_classes=None outputs"):
        Runner.from_cfg(config).val()


def test_an_evaluator_without_a_runner_says_so() -> None:
    init_default_scope("mmpretrain")
    sample = {"gt_label": torch.tensor([0]), "pred_score": torch.tensor([0.5, 0.5])}
    for kind in ("OODDetection", "RobustAccuracy", "EmbeddingQuality"):
        evaluator = Evaluator([{"type": f"mixplug.{kind}"}])
        text = rf"{kind} looks into the model .* dict\(type='mixplug\.{kind}'.*mixplug\.mm"
        with pytest.raises(ValueError, match=text):
            evaluator.process([sample], {"inputs": [torch.zeros(3, 4, 4, dtype=torch.uint8)]})
    evaluator = Evaluator([{"type": "mixplug.CalibrationError"}])  # which needs scores alone
    evaluator.process([sample])
    assert evaluator.evaluate(1)["ece"] == pytest.approx(50)


def test_wrong_settings() -> None:
    for kind, keys, error, text in (
        (CalibrationError, {"bins": 0}, ValueError, r"CalibrationError needs bins >= 1, got 0\."),
        (OODDetection, {"score": "odin"}, ValueError,
         r"a score in \('max_softmax', 'energy', 'max_logit'\), got 'odin'"),
        (RobustAccuracy, {"attack": "cw"}, ValueError,
         r"no attack 'cw', only fgsm, pgd, apgd"),
        (RobustAccuracy, {"white": 0}, ValueError, r"white > 0 or None, got 0\."),
        (RobustAccuracy, {"iters": 3}, KeyError, r"attack 'fgsm' has no key 'iters'\. Known: eps"),
        (RobustAccuracy, {"attack": "pgd", "iter": 3}, KeyError, r"Did you mean 'iters'\?"),
        (RobustAccuracy, {"attack": "pgd", "model": 3}, KeyError, "has no key 'model'"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            kind(**keys)
    init_default_scope("mmpretrain")
    with pytest.raises(ValueError, match="OODDetection needs no InDistribution around it"):
        METRICS.build(
            {"type": "mixplug.InDistribution", "metric": {"type": "mixplug.OODDetection"}}
        )


def test_wrong_data() -> None:
    model = build()
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    robust, quality = told(RobustAccuracy(), model), told(EmbeddingQuality(), model)
    batch, samples = step(model, images, [0, 1])
    with pytest.raises(ValueError, match=r"RobustAccuracy needs images of one size"):
        robust.process({"inputs": [images[0], images[1, :, :6]]}, samples)
    with pytest.raises(ValueError, match=r"embeddings of 1 images in one pass .* got \(2, 64\)"):
        quality.process(batch, samples[:1])
    several = {**samples[0], "gt_label": torch.tensor([0, 1])}
    for metric in (robust, quality, CalibrationError()):
        with pytest.raises(ValueError, match="needs one gt_label per data sample, got 2"):
            metric.process(batch, [samples[0], several])
        with pytest.raises(ValueError, match="needs one gt_label per data sample, got none"):
            metric.process(batch, [{"pred_score": torch.ones(1)}] * 2)
    with pytest.raises(ValueError, match=r"got scores with sums from 1\.8 to 1\.8"):
        CalibrationError().process(
            None, [{"pred_score": torch.tensor([0.9, 0.9]), "gt_label": torch.tensor([0])}]
        )
    with pytest.raises(ValueError, match="CalibrationError needs data samples with pred_score"):
        CalibrationError().process(None, [{"gt_label": torch.tensor([0])}])


def test_one_kind_of_images_is_refused() -> None:
    model = build()
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    detection = told(OODDetection(), model)
    batch, samples = step(model, images, [0, 1, 1])
    detection.process(batch, samples)
    with pytest.raises(ValueError, match=r"with and without the role 'ood', got 0 with and 3 with"):
        detection.compute_metrics(detection.results)
    for metric in (RobustAccuracy(), EmbeddingQuality(), CalibrationError()):
        told(metric, model).process(batch, [{**sample, "role": "ood"} for sample in samples])
        with pytest.raises(ValueError, match=f"{type(metric).__name__} got no image of a known cl"):
            metric.compute_metrics(metric.results)
