"""mmpretrain under mmengine's Runner and its stock tools, with the key ``mixup``."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmengine
import mmpretrain
import pytest
import torch
from hosts.hosting import mim_tools, mm_classifier, mm_config, run_tool
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug
import mixplug.mm
from mixplug.hosts.mm.hooks.mixup import MixupHook
from mixplug.hosts.mm.mixing import key as mm_mixup
from mixplug.hosts.mm.mixing.classifier import train_with

AE = {
    "type": "AlignMixup",
    "decoder": "ae",
    "image_shape": (3, 8, 8),
    "reconstruction_weight": 0.01,
}
TWO_LINES = """
custom_imports = dict(imports=['mixplug.mm'])
mixup = dict(type='DenseMultiMix')
"""
CIFAR = "_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'"
FEW_DIGITS = """
def digits(split, count, **keys):
    data = dict(type='mixplug.Digits', split=split, size=32, indices=count, **keys)
    return dict(dataset=dict(_delete_=True, **data), num_workers=0, persistent_workers=False)

train_pipeline = [dict(type='RandomCrop', crop_size=32, padding=4), dict(type='PackInputs')]
test_pipeline = [dict(type='PackInputs')]
train_dataloader = digits('train', 48, pipeline=train_pipeline)
val_dataloader = digits('test', 32, pipeline=test_pipeline)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
del digits
"""


mmpretrain.utils.register_all_modules(init_default_scope=False)


class Record(Hook):
    """Every iteration's loss, and the classifier's weights after it."""

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: list[Tensor] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        self.losses.append(outputs["loss"].item())
        self.weights.append(runner.model.head.fc.weight.detach().clone())


def train(config: Config) -> tuple[Runner, Record]:
    runner, record = Runner.from_cfg(config), Record()
    runner.register_hook(record)
    runner.train()
    return runner, record


def build_model(**changes: Any) -> ImageClassifier:
    model = MODELS.build({**mm_classifier(**changes), "_scope_": "mmpretrain"})
    model.init_weights()
    return model


def samples(labels: list[Any]) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


# ---------------------------------------------------------------- stock tools


def test_two_more_lines_and_the_stock_tool_trains(tmp_path: Path) -> None:
    plain, mixed = tmp_path / "plain.py", tmp_path / "mixed.py"
    plain.write_text(CIFAR + FEW_DIGITS)
    mixed.write_text(CIFAR + TWO_LINES + FEW_DIGITS)
    command = [sys.executable, str(mim_tools() / "train.py"), str(mixed), "--work-dir", "work"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Config.fromfile(tmp_path / "work" / "mixed.py").mixup == {"type": "DenseMultiMix"}
    assert "MixupHook" in done.stderr + done.stdout
    checkpoint = torch.load(tmp_path / "work" / "epoch_1.pth", weights_only=False)
    assert checkpoint["meta"]["iter"] == 3
    config = Config.fromfile(plain)
    model = MODELS.build({**config.model, "data_preprocessor": config.data_preprocessor})
    model.load_state_dict(checkpoint["state_dict"], strict=True)


def test_a_decoder_is_saved_and_ignored_by_the_stock_test_tool(tmp_path: Path) -> None:
    _, record = train(mm_config(tmp_path / "work", AE))
    assert len(record.losses) == 4
    path = tmp_path / "work" / "epoch_1.pth"
    state = torch.load(path, weights_only=False)["state_dict"]
    missing, unexpected = build_model().load_state_dict(state, strict=False)
    assert not missing
    assert unexpected and all(key.startswith("mixup.") for key in unexpected)

    scores = []
    for mixup in (None, AE):
        name = "mixed" if mixup else "plain"
        config = mm_config(tmp_path / name, mixup)
        config.test_dataloader, config.test_cfg = config.val_dataloader, {}
        config.test_evaluator = config.val_evaluator
        config.dump(tmp_path / f"{name}.py")
        out = tmp_path / f"{name}.pkl"
        run_tool(
            "test.py", tmp_path / f"{name}.py", path, "--work-dir", tmp_path / name, "--out", out
        )
        predictions = mmengine.load(out)
        scores.append(torch.stack([sample["pred_score"] for sample in predictions]))
    assert scores[0].shape == (50, 10)
    assert torch.equal(scores[0], scores[1])


def test_the_registry_is_importable_by_itself() -> None:
    code = (
        "import sys, mixplug.registry as r;"
        "assert 'mixplug.mm' not in sys.modules;"
        "from mmengine.registry import MODELS, DATASETS;"
        "assert MODELS.get('mixplug.WideResNet').__module__ == 'mixplug.hosts.mm.models.backbones';"
        "assert DATASETS.get('mixplug.Digits').__module__ == 'mixplug.hosts.mm.datasets.retrieval';"
        "assert {m.scope for m in (r.MODELS, r.DATASETS, r.HOOKS)} == {'mixplug'}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- recipes


def recipe(**keys: Any) -> dict[str, Any]:
    return {"type": "SwitchRecipeHook", "schedule": [{"action_epoch": 2, **keys}]}


def test_a_recipe_that_turns_batch_augments_on_is_refused_before_training(tmp_path: Path) -> None:
    config = mm_config(tmp_path, {"type": "InputMixup"}, 3)
    config.custom_hooks = [recipe(batch_augments={"augments": [{"type": "Mixup", "alpha": 0.8}]})]
    with pytest.raises(ValueError, match="SwitchRecipeHook turns them on at epoch 2"):
        train(config)
    assert not list(tmp_path.glob("*.pth"))


def test_a_recipe_with_a_loss_that_cannot_be_mixed_is_refused(tmp_path: Path) -> None:
    config = mm_config(tmp_path, {"type": "InputMixup"}, 3)
    config.custom_hooks = [recipe(loss={"type": "SeesawLoss", "num_classes": 10})]
    with pytest.raises(ValueError, match="SeesawLoss"):
        train(config)


def test_recipes_that_may_be(tmp_path: Path) -> None:
    config = mm_config(tmp_path, {"type": "InputMixup"}, 2)
    loss = {"type": "LabelSmoothLoss", "label_smooth_val": 0.1}
    config.custom_hooks = [recipe(batch_augments=None, loss=loss)]
    _, record = train(config)
    assert len(record.losses) == 8


class TurnsOn(Hook):
    """Changes the preprocessor by itself, without a schedule."""

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.epoch == 1:
            runner.model.data_preprocessor.batch_augments = lambda *batch: batch


def test_whatever_turns_batch_augments_on_stops_the_run(tmp_path: Path) -> None:
    runner, record = Runner.from_cfg(mm_config(tmp_path, {"type": "InputMixup"}, 3)), Record()
    runner.register_hook(record)
    runner.register_hook(TurnsOn())
    with pytest.raises(ValueError, match="would both mix the batch"):
        runner.train()
    assert len(record.losses) == 4  # of the first epoch


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize(
    ("mixup", "workers", "seed"),
    [
        ({"type": "DenseMultiMix", "n": 32}, 0, 3),
        ({"type": "AlignMixup"}, 2, 3),
        (AE, 0, None),
        ({"type": "OneOf", "mixers": [{"type": "CutMix"}, AE]}, 0, 3),
    ],
    ids=["dense", "alignmix-workers", "ae-no-seed", "one-of"],
)
def test_resumed_at_an_epoch_it_goes_on_bit_for_bit(
    mixup: dict[str, Any], workers: int, seed: int | None, tmp_path: Path
) -> None:
    config = mm_config(tmp_path / "whole", mixup, 3, randomness={"seed": seed})
    config.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
    whole_run, whole = train(config)
    resumed = mm_config(tmp_path / "resumed", mixup, 3, randomness={"seed": seed})  # no workers
    resumed.resume, resumed.load_from = True, str(tmp_path / "whole" / "epoch_2.pth")
    resumed_run, rest = train(resumed)
    assert len(whole.losses) == len(set(whole.losses)) == 12
    assert rest.losses == whole.losses[8:]
    expected = whole_run.model.state_dict()
    assert resumed_run.model.state_dict().keys() == expected.keys()
    for key, value in resumed_run.model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert any(key.startswith("mixup.") for key in expected) == ("decoder" in str(mixup))
    assert seed in (None, whole_run.seed)
    assert resumed_run.seed == whole_run.seed


def test_the_decoder_is_resumed(tmp_path: Path) -> None:
    runner, _ = train(mm_config(tmp_path / "first", AE))
    config = mm_config(tmp_path / "second", AE)  # as many epochs, so nothing is left to train
    config.resume, config.load_from = True, str(tmp_path / "first" / "epoch_1.pth")
    resumed, record = train(config)
    assert record.losses == []
    expected = runner.model.mixup.state_dict()
    before = mm_config(tmp_path / "third", AE)
    fresh = Runner.from_cfg(before).model.mixup.state_dict()
    assert not torch.equal(fresh["decoder.conv.weight"], expected["decoder.conv.weight"])
    for key, value in resumed.model.mixup.state_dict().items():
        assert torch.equal(value, expected[key])


def test_augmentation_differs_from_epoch_to_epoch_and_item_to_item(tmp_path: Path) -> None:
    config = mm_config(tmp_path, {"type": "InputMixup"}, epochs=2)
    config.train_dataloader.sampler.shuffle = False
    config.train_dataloader.dataset.indices = [0] * 16
    batches = []

    class Look(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            batches.append(torch.stack(data_batch["inputs"]))

    runner = Runner.from_cfg(config)
    runner.register_hook(Look())
    runner.train()
    one, two = batches
    assert not torch.equal(one, two)
    assert any(not torch.equal(one[0], other) for other in one[1:])


# ---------------------------------------------------------------- the runner


def test_ema_follows_the_weights(tmp_path: Path) -> None:
    hook = {"type": "EMAHook", "ema_type": "ExponentialMovingAverage", "momentum": 0.25}
    _, record = train(mm_config(tmp_path, {"type": "AlignMixup"}, custom_hooks=[hook]))
    checkpoint = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    expected = record.weights[0]
    for weight in record.weights[1:]:
        expected = 0.75 * expected + 0.25 * weight
    assert_close(checkpoint["state_dict"]["head.fc.weight"], expected)
    trained = checkpoint["ema_state_dict"]["module.head.fc.weight"]
    assert torch.equal(trained, record.weights[-1])
    build_model().load_state_dict(checkpoint["state_dict"], strict=True)


def test_enabling_twice_changes_nothing() -> None:
    before = Runner.build_model, Runner.register_hooks
    mixplug.mm.enable()
    assert (Runner.build_model, Runner.register_hooks) == before


@pytest.mark.parametrize("key", ["absent", "none"])
def test_without_the_key_the_runner_is_mmengines(key: str, tmp_path: Path) -> None:
    config = mm_config(tmp_path)
    if key == "none":
        config.mixup = None
    runner = Runner.from_cfg(config)
    assert type(runner.model) is ImageClassifier
    assert not any(isinstance(hook, MixupHook) for hook in runner.hooks)
    assert not runner.model.head.fc._forward_hooks
    mixed = Runner.from_cfg(mm_config(tmp_path, {"type": "InputMixup"}))
    extra = [hook for hook in mixed.hooks if isinstance(hook, MixupHook)]
    assert len(extra) == 1
    assert [type(h) for h in mixed.hooks if h not in extra] == [type(h) for h in runner.hooks]
    assert isinstance(mixed.model, ImageClassifier)


def test_every_step_has_its_own_draws_and_the_off_epoch_is_clean(
    tmp_path: Path, seen: list[dict]
) -> None:
    mixup = {"type": "InputMixup", "off_epoch": 1}
    runner, _ = train(mm_config(tmp_path, mixup, epochs=2))
    assert [(s["step"], s["epoch"], s["soft"]) for s in seen] == [
        (step, step // 4, step < 4) for step in range(8)
    ]
    assert runner.model.clock.seed == 3


@pytest.mark.parametrize(
    ("mixup", "error", "text"),
    [
        (
            {"type": "DenseMultimx"},
            KeyError,
            "no mixer 'DenseMultimx'. Did you mean 'DenseMultiMix'",
        ),
        (
            {"type": "AlignMixup", "ep": 1},
            KeyError,
            "AlignMixup has no key 'ep'. Did you mean 'eps'",
        ),
        ({"type": "AlignMixup", "modes": ["B"]}, ValueError, "ImageClassifier has no module 'B'"),
        ({}, ValueError, "needs the key 'type'"),
    ],
    ids=["type", "key", "module", "empty"],
)
def test_a_wrong_key_says_what_would_be_right(
    mixup: dict, error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        Runner.from_cfg(mm_config(tmp_path, mixup))
    assert text in str(raised.value)


def test_batch_augments_beside_the_key_are_refused(tmp_path: Path) -> None:
    config = mm_config(tmp_path, {"type": "AlignMixup"})
    config.model.train_cfg = {"augments": {"type": "Mixup", "alpha": 0.8}}
    with pytest.raises(
        ValueError, match=r"would both mix the batch\. .*model=dict\(train_cfg=None"
    ):
        Runner.from_cfg(config)


class Toy(BaseModel):
    def forward(self, inputs, data_samples=None, mode="tensor"):
        return {}


HEADS = {
    "ArcFaceClsHead": {"num_classes": 10, "in_channels": 64},
    "CSRAClsHead": {"num_classes": 10, "in_channels": 64, "num_heads": 1, "lam": 0.1},
}


def test_a_head_that_mmpretrain_does_not_train_is_refused() -> None:
    """Its loss raises an error for distillation, and is that of any classifier without it."""
    head = {"type": "EfficientFormerClsHead", "num_classes": 10, "in_channels": 64}
    with pytest.raises(ValueError, match=r"with distillation\. Set head=dict\(distillation=False"):
        train_with(build_model(head=head), mixplug.build("alignmix"))
    train_with(build_model(head={**head, "distillation": False}), mixplug.build("alignmix"))


@pytest.mark.parametrize("head", HEADS)
def test_a_head_with_a_loss_of_its_own_is_refused(head: str) -> None:
    model = build_model(head={"type": head, **HEADS[head]})
    with pytest.raises(ValueError, match=f"got ImageClassifier with {head}"):
        train_with(model, mixplug.build("alignmix"))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    config = mm_config(tmp_path, {"type": "AlignMixup"})
    with pytest.raises(ValueError, match=r"mmpretrain's ImageClassifier .* got Toy with NoneType"):
        Runner(Toy(), str(tmp_path), cfg=config)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="got ImageClassifier with NoneType"):
        train_with(build_model(head=None), mixplug.build("alignmix"))


def test_the_log_says_what_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    models, messages = [build_model(), build_model()], list[str]()
    logger = MMLogger.get_current_instance()  # with which mmengine logs how weights are initialized
    monkeypatch.setattr(logger, "info", lambda text, *values: messages.append(text % values))
    mm_mixup.train_with(models[0], mixplug.build("mixup", alpha=0.2))
    mm_mixup.train_with(models[1], mixplug.build("multimix"))
    assert messages == [
        "InputMixup mixes training batches, classifier head.fc (alpha=0.2, prob=1.0)",
        "MultiMix mixes training batches, classifier head.fc (prob=0.5)",
    ]


def test_a_head_without_a_layer_for_its_classes_leaves_mixers_of_the_input() -> None:
    """As that of Inception v3, whose backbone classifies."""
    model = build_model(head={"type": "ClsHead"})
    message = "AlignMixup mixes more than the input: ImageClassifier has no classifier module"
    with pytest.raises(ValueError, match=message):
        train_with(model, mixplug.build("alignmix"))
    assert not hasattr(model, "mixer") and type(model) is ImageClassifier
    train_with(model, mixplug.build("cutmix"))


# ---------------------------------------------------------------- losses

_SOFT = torch.tensor([0.5, 0.3, *[0.025] * 8])
_LABELS = {"index": [3, 1, 4, 1], "several": [[3, 1], [], [0], [9]]}
_LINEAR = {"num_classes": 10, "in_channels": 64}
LOSSES = {
    "ce": ("index", {"type": "CrossEntropyLoss"}),
    "weighted": ("index", {"type": "CrossEntropyLoss", "loss_weight": 0.4}),
    "class weights": ("index", {"type": "CrossEntropyLoss", "class_weight": [*range(1, 11)]}),
    "sigmoid": ("score", {"type": "CrossEntropyLoss", "use_sigmoid": True}),
    "soft": ("score", {"type": "CrossEntropyLoss", "use_soft": True, "loss_weight": 2.0}),
    "smooth": ("index", {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "loss_weight": 0.5}),
    "classy": (
        "index",
        {"type": "LabelSmoothLoss", "label_smooth_val": 0.2, "mode": "classy_vision"},
    ),
    "smooth multi-label": (
        "index",
        {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "mode": "multi_label"},
    ),
    "multi-label": ("several", {"type": "CrossEntropyLoss", "use_sigmoid": True}),
    "focal": ("several", {"type": "FocalLoss", "gamma": 2.0, "loss_weight": 3.0}),
    "asymmetric": ("several", {"type": "AsymmetricLoss"}),
}


@pytest.mark.parametrize(
    "mixer", [{"type": "InputMixup", "prob": 0}, {"type": "MultiMix", "off_epoch": 0}]
)
@pytest.mark.parametrize("name", LOSSES)
def test_without_mixing_the_loss_is_the_heads_own(name: str, mixer: dict) -> None:
    labels, loss = LOSSES[name]
    kind = "MultiLabelLinearClsHead" if labels == "several" else "LinearClsHead"
    model = build_model(head={"type": kind, **_LINEAR, "loss": loss})
    x, given = torch.randn(4, 3, 8, 8), samples(_LABELS.get(labels, [0] * 4))
    if labels == "score":
        given = [DataSample().set_gt_score(_SOFT.roll(shift)) for shift in range(4)]
    expected = copy.deepcopy(model).loss(x, given)["loss"]
    train_with(model, mixplug.build(mixer))
    model.clock.epoch = 0  # as the Runner's hook sets it
    assert_close(model.loss(x, given)["loss"], expected)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_mixes_and_differs(name: str) -> None:
    labels, loss = LOSSES[name]
    kind = "MultiLabelLinearClsHead" if labels == "several" else "LinearClsHead"
    x, given = torch.randn(4, 3, 8, 8), samples(_LABELS.get(labels, [0] * 4))
    if labels == "score":
        given = [DataSample().set_gt_score(_SOFT.roll(shift)) for shift in range(4)]
    plain = build_model(head={"type": kind, **_LINEAR, "loss": loss})
    nn.init.normal_(plain.head.fc.weight)
    for type_ in ("DenseMultiMix", "AlignMixup"):
        model = copy.deepcopy(plain)
        train_with(model, mixplug.build({"type": type_}))
        model.clock.step = next(step for step in range(9) if _is_mixed_inside(model.mixer, x, step))
        value = model.loss(x, given)["loss"]
        value.backward()
        assert value.dtype == torch.float32
        assert not torch.isclose(value, plain.loss(x, given)["loss"], rtol=1e-3)
        assert all(p.grad.isfinite().all() for p in model.parameters())


def _is_mixed_inside(mixer: mixplug.Mixer, x: Tensor, step: int) -> bool:
    branch = mixer.sample(x, mixplug.sampling.generators(0, step)).branch
    return branch not in ("x", "clean")


@pytest.mark.parametrize("mixer", ["alignmix", "dense_multimix", "multimix"])
def test_the_loss_stays_float32_under_autocast(mixer: str) -> None:
    model = build_model()
    train_with(model, mixplug.build(mixer))
    x, given = torch.randn(4, 3, 8, 8), samples([3, 1, 4, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            model(x).dtype == torch.float32
            or model.head.fc(torch.ones(1, 64)).dtype == torch.bfloat16
        )
        for step in range(6):
            model.clock.step = step
            loss = model(x, given, mode="loss")["loss"]
            assert loss.dtype == torch.float32
            assert loss.isfinite()


# ---------------------------------------------------------------- other backbones

_ARCH = {"embed_dims": 16, "num_layers": 3, "num_heads": 2, "feedforward_channels": 32}
_TOKENS = {"img_size": 16, "patch_size": 4}
_VIT_HEAD = {"type": "VisionTransformerClsHead", "num_classes": 10, "in_channels": 16}
_LINEAR_16 = {"type": "LinearClsHead", "num_classes": 10, "in_channels": 16}
_GAP = {"type": "GlobalAveragePooling"}


def _vit(out_type: str, kind: str = "VisionTransformer", **more: Any) -> dict[str, Any]:
    return {"type": kind, "arch": _ARCH, "out_type": out_type, **_TOKENS, **more}


BACKBONES = {
    "vit-cls": (_vit("cls_token"), None, {**_VIT_HEAD, "hidden_dim": 10}),
    "vit-avg": (_vit("avg_featmap", with_cls_token=False), None, _VIT_HEAD),
    "vit-avg-with-cls": (_vit("avg_featmap"), None, _VIT_HEAD),
    "vit-map": (_vit("featmap"), _GAP, _LINEAR_16),
    "beit": (_vit("avg_featmap", "BEiTViT", layer_scale_init_value=0.5), None, _LINEAR_16),
    "t2t": (
        {
            "type": "T2T_ViT",
            "img_size": 32,
            "embed_dims": 16,
            "num_layers": 3,
            "t2t_cfg": {"token_dims": 16},
            "layer_cfgs": {"num_heads": 2, "feedforward_channels": 32},
        },
        None,
        _VIT_HEAD,
    ),
    "convnext": (
        {"type": "ConvNeXt", "arch": {"depths": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}},
        None,
        _LINEAR_16,
    ),
    "swin": (
        {
            "type": "SwinTransformer",
            "arch": {"embed_dims": 8, "depths": [1, 1, 1, 2], "num_heads": [1, 1, 1, 1]},
            "img_size": 64,
            "window_size": 2,
        },
        _GAP,
        {**_LINEAR_16, "in_channels": 64},
    ),
}
SIDES = {"t2t": 32, "convnext": 64, "swin": 64}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_kind_of_backbone_trains(name: str) -> None:
    backbone, neck, head = BACKBONES[name]
    model = build_model(backbone=backbone, neck=neck, head=head)
    for parameter in model.head.parameters():  # some start at zero
        nn.init.normal_(parameter)
    side = SIDES.get(name, 16)
    x, given = torch.randn(4, 3, side, side), samples([3, 1, 4, 1])
    expected = copy.deepcopy(model).eval()(x, mode="tensor")
    train_with(model, mixplug.build("alignmix"))
    model.eval()
    stages = model.stages
    with torch.no_grad():
        logits = stages(x).logits
        assert_close(logits, expected)
        grids = []
        moved = stages(
            x, features=lambda a: grids.append(a.shape) or a + torch.randn_like(a)
        ).logits
        assert (moved - logits).abs().max() > 0.01 * logits.abs().max()
        assert grids[0][0] == 4 and grids[0][2] == grids[0][3] > 1
        dense = stages(x, dense=lambda a: a).logits
        assert dense.shape[0] == 4 and dense.shape[1] > 1 and dense.shape[2] == 10
    model.train()
    for mixer in ("alignmix", "dense_multimix"):
        model.mixer = mixplug.build(mixer)
        for step in range(8):
            model.clock.step = step
            model.loss(x, given)["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert next(model.backbone.parameters()).grad is not None


def test_the_mean_of_dense_logits_is_the_logits() -> None:
    model = build_model().eval()
    train_with(model, mixplug.build("dense_multimix"))
    x = torch.randn(4, 3, 32, 32)
    dense = model.stages(x, dense=lambda a: a).logits
    assert dense.shape == (4, 64, 10)
    assert_close(dense.mean(1), model.head(model.extract_feat(x)))


def test_weights_of_a_file_load_under_the_key(tmp_path: Path) -> None:
    plain = build_model()
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "plain.pth")
    runner = Runner.from_cfg(mm_config(tmp_path, {"type": "AlignMixup"}))
    load_checkpoint(runner.model, str(tmp_path / "plain.pth"), strict=True)
    assert torch.equal(runner.model.head.fc.weight, plain.head.fc.weight)


def test_integer_scores_are_rows() -> None:
    model = build_model()
    train_with(model, mixplug.build("InputMixup", prob=0.0))
    scores = torch.eye(10, dtype=torch.long)[:4]
    x = torch.randn(4, 3, 8, 8)
    found = model.eval().loss(x, [DataSample().set_gt_score(row) for row in scores])["loss"]
    assert_close(found, nn.functional.cross_entropy(model(x), scores.float()))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"type": "SeesawLoss", "num_classes": 10}, "SeesawLoss cannot be mixed. A mixed target"),
        ({"type": "CrossEntropyLoss", "class_weight": [1.0] * 3}, "CrossEntropyLoss cannot be"),
    ],
)
def test_a_loss_that_fails_on_mixed_targets_is_refused_at_the_start(
    loss: dict[str, Any], message: str
) -> None:
    head = {**mm_classifier()["head"], "loss": loss}
    with pytest.raises(ValueError, match=message):
        train_with(build_model(head=head), mixplug.build("InputMixup"))


class Counts(nn.Module):
    """A loss for rows that counts its batches in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, logits: Tensor, target: Tensor, reduction_override: str = "mean") -> Tensor:
        self.batches += 1
        return -(target * logits.log_softmax(-1)).sum(-1)


def test_a_loss_with_a_state_is_refused() -> None:
    model = build_model()
    model.head.loss_module = Counts()
    with pytest.raises(ValueError, match=r"Counts cannot be mixed: it keeps a state \(batches\)"):
        train_with(model, mixplug.build("InputMixup"))
    assert float(model.head.loss_module.batches) == 0


def test_one_class_with_softmax_is_refused() -> None:
    head = {**mm_classifier()["head"], "num_classes": 1, "topk": (1,)}
    with pytest.raises(ValueError, match="one output is always 0"):
        train_with(build_model(head=head), mixplug.build("InputMixup"))
