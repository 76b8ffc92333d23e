"""Metric learning in mm: MetricLearner, TimmBackbone and RecallAtK under mmengine and its tools."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmpretrain
import numpy as np
import pytest
import timm
import torch
from hosts.hosting import mim_tools, run_tool
from hosts.learners import EVALUATED, LEVELS, MS, PA, SCORES, learner, metric_config, metrix, work
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.testing import assert_close
from two_processes import in_both

import mixplug
import mixplug.mm
from mixplug import sampling
from mixplug.hosts.mm.evaluation.retrieval import RecallAtK
from mixplug.hosts.mm.hooks.mixup import MixupHook
from mixplug.registry import MODELS

mmpretrain.utils.register_all_modules(init_default_scope=False)


class Record(Hook):
    """Every iteration's loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        self.losses.append(outputs["loss"].item())


def train(config: Config) -> tuple[Runner, Record]:
    runner, record = Runner.from_cfg(config), Record()
    runner.register_hook(record)
    runner.train()
    return runner, record


def build(loss: Any = MS, seed: int = 0, **changes: Any) -> Any:
    init_default_scope("mmpretrain")
    torch.manual_seed(seed)
    return MODELS.build(learner(loss, **changes))


def samples(labels: list[int]) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


LABELS = [0, 1, 2, 0, 1, 2, 4]
IMAGES = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def embed(state: dict[str, Tensor], dataset: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Embeddings, classes and roles of a data set, image by image, by a network of plain parts."""
    model = build(PA)
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("loss.")}, False)
    model.eval()
    rows, labels, roles = [], [], []
    with torch.no_grad():
        for item in dataset:
            x = (item["inputs"].float()[None] - 78) / 85
            a = model.backbone(x)[-1]
            rows.append(model.head.fc(a.mean((2, 3)) + a.amax((2, 3)))[0].numpy())
            labels.append(int(item["data_samples"].gt_label))
            roles.append(item["data_samples"].role)
    rows = np.stack(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.array(labels), roles


def naive_recall(e: np.ndarray, y: np.ndarray, gallery: Any, k: int) -> float:
    """By a loop over queries; gallery None is the queries without the query."""
    hits = []
    for i in range(len(e)):
        keep = [j for j in range(len(e)) if j != i]
        others, labels = (e[keep], y[keep]) if gallery is None else gallery
        hits.append(y[i] in labels[np.argsort(-others @ e[i], kind="stable")[:k]])
    return 100 * float(np.mean(hits))


def of(roles: list[str], wanted: str, *arrays: np.ndarray) -> list[np.ndarray]:
    return [a[[role == wanted for role in roles]] for a in arrays]


# ---------------------------------------------------------------- stock tools


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where the stock tool has trained a config without custom_imports, and its log."""
    folder = tmp_path_factory.mktemp("stock")
    config = metric_config(folder / "work", metrix(PA, level=LEVELS), epochs=2)
    config.log_level = "INFO"
    config.default_hooks.logger = {"type": "LoggerHook", "interval": 1}
    config.test_dataloader, config.test_cfg = config.val_dataloader, {}
    config.test_evaluator = config.val_evaluator
    config.dump(folder / "metric.py")
    assert "mixplug.mm" not in (folder / "metric.py").read_text()
    command = [sys.executable, str(mim_tools() / "train.py"), "metric.py", "--work-dir", "work"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout + done.stderr


def test_the_stock_tool_trains_without_custom_imports(stock: tuple[Path, str]) -> None:
    folder, log = stock
    assert "MixupHook" in log
    assert log.count("recall@1: ") == 2
    assert len(list((folder / "work").glob("best_recall@1_epoch_*.pth"))) == 1  # 'auto'
    checkpoint = torch.load(folder / "work" / "epoch_2.pth", weights_only=False)
    assert checkpoint["meta"]["iter"] == 8
    assert checkpoint["state_dict"]["loss.loss.proxies"].shape == (5, 16)


def test_the_stock_tool_tests_what_its_sets_contain(
    stock: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In-Shop's recall and utilization, against a loop over what plain parts make of the images."""
    folder, _ = stock
    monkeypatch.chdir(folder)
    run_tool("test.py", "metric.py", "work/epoch_2.pth", "--work-dir", "tested")
    (path,) = (folder / "tested").glob("*/*.json")
    found = json.loads(path.read_text())
    state = torch.load(folder / "work" / "epoch_2.pth", weights_only=False)["state_dict"]
    e, y, roles = embed(state, DATASETS.build(Config.fromfile("metric.py").val_dataloader.dataset))
    assert [roles.count(role) for role in ("query", "gallery", "train")] == [37, 22, 26]
    queries, classes = of(roles, "query", e, y)
    gallery, (known,) = of(roles, "gallery", e, y), of(roles, "train", e)
    for k in (1, 4):
        expected = naive_recall(queries, classes, gallery, k)
        assert found[f"recall@{k}"] == pytest.approx(expected)
    assert found["recall@1"] != pytest.approx(naive_recall(queries, classes, None, 1))
    nearest = [min(np.sum((q - x) ** 2) for x in known) for q in queries]
    assert found["utilization"] == pytest.approx(np.mean(nearest), rel=1e-3)
    assert 0 < found["utilization_mixed"] < found["utilization"]
    assert {"map@r", "r_precision", "nmi", "alignment", "uniformity"} < set(found)


# ---------------------------------------------------------------- resuming


M_PER_CLASS = {"type": "mixplug.MPerClassSampler", "batch_size": 15, "m": 3, "_delete_": True}


@pytest.mark.parametrize(
    ("loss", "seed", "sampler"),
    [
        (metrix(MS, level=LEVELS), 3, None),
        (metrix(PA), None, M_PER_CLASS),
        (PA, 3, None),
    ],
    ids=["ms-all-levels", "pa-no-seed-m-per-class", "pa-baseline"],
)
def test_resumed_at_an_epoch_it_goes_on_bit_for_bit(
    loss: dict[str, Any], seed: int | None, sampler: dict | None, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"randomness": {"seed": seed}, "train_cfg.val_interval": 9}
    if sampler:
        changes["train_dataloader.sampler"] = sampler
    whole_run, whole = train(metric_config(tmp_path / "whole", loss, 3, **changes))
    config = metric_config(tmp_path / "resumed", loss, 3, **changes)
    config.resume, config.load_from = True, str(tmp_path / "whole" / "epoch_2.pth")
    resumed_run, rest = train(config)
    assert len(whole.losses) == len(set(whole.losses)) == 12
    assert rest.losses == whole.losses[8:]
    expected = whole_run.model.state_dict()
    assert resumed_run.model.state_dict().keys() == expected.keys()
    for key, value in resumed_run.model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert any(key.endswith("proxies") for key in expected) == ("ProxyAnchor" in str(loss))
    assert sum(isinstance(hook, MixupHook) for hook in resumed_run.hooks) == 1


# ---------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("two_ranks")
    return out, in_both(work, out)


def test_ranks_take_one_level_and_draws_of_their_own(ranks: tuple[Path, list[dict]]) -> None:
    zero, one = ranks[1]
    assert zero["levels"] == one["levels"] and len(zero["levels"]) == 8  # level and pairs, 4 steps
    assert len(set(zero["levels"][::2])) > 1
    for mine, yours in zip(zero["lams"][:4], one["lams"][:4], strict=True):
        assert mine.shape != yours.shape or not torch.equal(mine, yours)
    assert zero["unused"] is one["unused"] is False
    assert torch.equal(zero["parameters"], one["parameters"])


def test_two_ranks_score_what_one_scores(ranks: tuple[Path, list[dict]]) -> None:
    """To the last digit, with an odd number of images, the mixtures included."""
    out, (zero, one) = ranks
    assert EVALUATED % 2 == 1
    assert zero["scores"] == one["scores"]
    config = metric_config(out / "alone", metrix(PA))
    config.load_from = str(out / "work" / "epoch_2.pth")
    config.default_hooks.checkpoint.save_best = None
    config.val_evaluator.scores = SCORES
    alone = Runner.from_cfg(config).val()
    assert alone.keys() == zero["scores"].keys()
    for name, value in alone.items():
        assert value == pytest.approx(zero["scores"][name], rel=1e-5), name


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize("inner", [MS, PA], ids=["ms", "pa"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_loss_is_metrix_of_what_the_network_makes(level: str, inner: dict) -> None:
    """Called by hand with maps, images and the draws of the clock's step."""
    model = build(metrix(inner, level=level)).train()
    model.clock.seed, model.clock.step = 5, 11
    hand = copy.deepcopy(model)
    found = model(IMAGES, samples(LABELS), mode="loss")["loss"]
    (a,) = hand.backbone(IMAGES)
    expected = hand.loss(
        hand.head(a),
        torch.tensor(LABELS),
        features=(a, hand.head),
        inputs=(IMAGES, lambda x: hand.head(hand.backbone(x)[-1])),
        generators=sampling.generators(5, 11, 0),
    )
    assert_close(found, expected)
    found.backward()
    expected.backward()
    for (name, mine), yours in zip(model.named_parameters(), hand.parameters(), strict=True):
        assert_close(mine.grad, yours.grad, msg=name)
    model.clock.step = 12
    assert not torch.isclose(model(IMAGES, samples(LABELS), mode="loss")["loss"], found)


@pytest.mark.parametrize("inner", [MS, PA], ids=["ms", "pa"])
def test_without_the_wrapper_it_is_the_baseline(inner: dict) -> None:
    plain, wrapped = build(inner), build(metrix(inner, w=0, level=LEVELS))
    names = {name.replace("loss.loss.", "loss.") for name in wrapped.state_dict()}
    assert names == set(plain.state_dict())
    expected = mixplug.build(inner, kind="loss", **({"dim": 16} if inner is PA else {}))
    expected.load_state_dict(plain.loss.state_dict())
    found = plain(IMAGES, samples(LABELS), mode="loss")["loss"]
    with torch.no_grad():
        a = build(inner).backbone(IMAGES)[-1]
        e = plain.head.fc(a.mean((2, 3)) + a.amax((2, 3)))
    assert_close(found, expected(e, torch.tensor(LABELS)))
    assert_close(wrapped(IMAGES, samples(LABELS), mode="loss")["loss"], found)


def test_predictions_are_the_embeddings() -> None:
    model = build().eval()
    with torch.no_grad():
        e = model(IMAGES)
        given = samples(LABELS)
        found = model(IMAGES, given, mode="predict")
    assert [id(s) for s in found] == [id(s) for s in given]
    assert torch.equal(torch.stack([s.pred_embedding for s in found]), e)
    assert_close(e.norm(dim=1), torch.ones(7))
    assert not torch.isclose(
        build(embedding={"dim": 4, "normalize": False})(IMAGES).norm(), e.norm()
    )


@pytest.mark.parametrize("level", LEVELS)
def test_the_loss_stays_float32_under_autocast(level: str) -> None:
    model = build(metrix(PA, level=level))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(IMAGES, samples(LABELS), mode="loss")["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_vectors_are_maps_of_one_position() -> None:
    arch = {"embed_dims": 16, "num_layers": 2, "num_heads": 2, "feedforward_channels": 32}
    vit = {"type": "mmpretrain.VisionTransformer", "arch": arch, "img_size": 8, "patch_size": 4}
    model = build(metrix(MS), backbone={**vit, "out_type": "cls_token"}).eval()
    with torch.no_grad():
        (token,) = model.backbone(IMAGES)
        e = model.head.fc(2 * token)  # average plus maximum over one position
        assert_close(model(IMAGES), e / e.norm(dim=1, keepdim=True))
    assert model(IMAGES, samples(LABELS), mode="loss")["loss"].isfinite()
    raw = build(backbone={**vit, "out_type": "raw"})
    with pytest.raises(
        ValueError, match=r"or vectors \(B, 16\) from VisionTransformer, got \(7, 5"
    ):
        raw(IMAGES)


@pytest.mark.parametrize(
    ("kind", "width"),
    [("ResNet", 512), ("mmpretrain.RegNet", 384), ("mixplug.PreActResNet", 512)],
)
def test_the_width_is_what_the_backbone_declares(kind: str, width: int) -> None:
    more = {"ResNet": {"depth": 18}, "mmpretrain.RegNet": {"arch": "regnetx_400mf"}}.get(kind, {})
    model = build(backbone={"type": kind, **more}).eval()
    assert model.head.fc.in_features == width
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 16)


def test_a_width_that_is_not_declared_can_be_given() -> None:
    lenet = {"type": "mmpretrain.LeNet5"}
    with pytest.raises(ValueError, match=r"LeNet5 does not declare .*dict\(in_channels=\.\.\.\)"):
        build(backbone=lenet)
    model = build(backbone=lenet, embedding={"in_channels": 120, "dim": 4})
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    wrong = build(backbone=lenet, embedding={"in_channels": 84})
    with pytest.raises(ValueError, match=r"maps \(B, 84, H, W\) .* got \(2, 120, 1, 1\)"):
        wrong(torch.randn(2, 1, 32, 32))


@pytest.mark.parametrize(
    ("loss", "error", "text"),
    [
        ({"type": "ProxyAnchor"}, ValueError, "ProxyAnchor needs the key 'num_classes'"),
        (metrix({"type": "NCCA"}), KeyError, "no loss 'NCCA'. Did you mean 'NCA'"),
        (metrix(MS, lvl="embed"), KeyError, "Metrix has no key 'lvl'. Did you mean 'level'"),
        ({"type": "AlignMixup"}, KeyError, "no loss 'AlignMixup'"),
    ],
    ids=["classes", "type", "key", "kind"],
)
def test_a_wrong_loss_says_what_would_be_right(
    loss: dict, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        build(loss)
    assert text in str(raised.value)


def test_what_it_cannot_do_is_said() -> None:
    model = build()
    with pytest.raises(ValueError, match="mode 'tensor', 'loss' or 'predict', got 'train'"):
        model(IMAGES, mode="train")
    for given in (None, [], [DataSample()] * 7, [DataSample().set_gt_label([1, 2])] * 7):
        with pytest.raises(ValueError, match="one gt_label each for its loss"):
            model(IMAGES, given, mode="loss")


@pytest.mark.parametrize("loss", [PA, metrix(PA)], ids=["baseline", "metrix"])
def test_proxies_learn_at_their_own_rate(loss: dict) -> None:
    model = build(loss)
    config = {"optimizer": {"type": "AdamW", "lr": 1e-4}}
    config["paramwise_cfg"] = {"custom_keys": {"loss.proxies": {"lr_mult": 100}}}
    groups = build_optim_wrapper(model, Config({"o": config}).o).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 1e-2 if name.endswith("proxies") else 1e-4
        assert rates[id(parameter)] == pytest.approx(expected), name


def test_a_mixup_key_that_came_too_late_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without custom_imports, if the model's type is what imports mixplug.mm."""
    monkeypatch.setattr(Runner, "build_model", Runner.build_model.__wrapped__)
    config = metric_config(tmp_path, MS)
    config.model = {"type": "ImageClassifier", "backbone": config.model.backbone}
    config.mixup = {"type": "AlignMixup"}
    with pytest.raises(ValueError, match=r"custom_imports = dict\(imports=\['mixplug.mm'\]\)"):
        Runner.from_cfg(config)


# ---------------------------------------------------------------- timm's backbones

_SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)}
TIMM = {
    "cnn": ("test_resnet", {}, 32),
    "head-conv": ("mobilenetv3_small_050", {}, 32),
    "channels-last": ("swin_tiny_patch4_window7_224", _SWIN, 32),
    "tokens": ("test_vit", {"img_size": 32}, 32),
    "registers": ("test_vit3", {"img_size": 32}, 32),
    "attention-pool": ("test_vit2", {"img_size": 32, "global_pool": "map"}, 32),
}


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_backbone_gives_the_map(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm's own forward_intermediates; every parameter takes part; nothing is downloaded."""
    monkeypatch.setattr(socket.socket, "connect", None)
    kind, options, side = TIMM[name]
    model = build(backbone={"type": "mixplug.TimmBackbone", "model_name": kind, **options})
    own = model.backbone.model.eval()
    x = torch.randn(2, 3, side, side)
    (found,) = model.backbone(x)
    (expected,) = own.forward_intermediates(
        x, indices=1, norm=True, intermediates_only=True, output_fmt="NCHW"
    )
    assert found.shape[1] == model.in_channels
    assert_close(found, expected)
    model.train()(torch.randn(4, 3, side, side)).square().sum().backward()
    unused = [n for n, p in model.backbone.named_parameters() if p.grad is None]
    assert not unused


def test_mmengine_leaves_timms_weights_alone(tmp_path: Path) -> None:
    """Its init_weights would call a ViT's own; those of init_cfg are loaded."""
    vit = {"type": "mixplug.TimmBackbone", "model_name": "test_vit", "img_size": 16}
    model = build(backbone=vit)
    before = copy.deepcopy(model.backbone.state_dict())
    model.init_weights()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
    torch.save(before, tmp_path / "vit.pth")
    given = {"type": "Pretrained", "checkpoint": str(tmp_path / "vit.pth")}
    other = build(backbone={**vit, "init_cfg": given}, seed=1)
    assert not torch.equal(
        other.backbone.state_dict()["model.cls_token"], before["model.cls_token"]
    )
    other.init_weights()
    for key, value in other.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_timm_model_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no model 'resnett50'. Nearest: .*resnet50"):
        build(backbone={"type": "mixplug.TimmBackbone", "model_name": "resnett50"})
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"TimmBackbone needs timm.*--extra timm"):
        build(backbone={"type": "mixplug.TimmBackbone", "model_name": "resnet50"})
    assert timm.is_model("resnet50")


# ---------------------------------------------------------------- the evaluator


def outputs(e: Tensor, labels: list[int], role: str | None = None) -> list[dict]:
    more = {} if role is None else {"role": role}
    return [
        {"pred_embedding": row, "gt_label": torch.tensor([label]), **more}
        for row, label in zip(e, labels, strict=True)
    ]


def score(*batches: list[dict], **settings: Any) -> dict[str, float]:
    metric = RecallAtK(**{"ks": (1, 2), **settings})
    for batch in batches:
        metric.process(None, batch)
    return metric.evaluate(sum(map(len, batches)))


RANDOM = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
CLASSES = [k % 4 for k in range(30)]


@pytest.mark.parametrize("role", [None, "query"])
def test_queries_alone_are_searched_among_themselves(role: str | None) -> None:
    e = RANDOM.numpy() / np.linalg.norm(RANDOM.numpy(), axis=1, keepdims=True)
    batches = outputs(RANDOM[:7], CLASSES[:7], role), outputs(RANDOM[7:], CLASSES[7:], role)
    found = score(*batches)
    assert found == {
        f"recall@{k}": pytest.approx(naive_recall(e, np.array(CLASSES), None, k)) for k in (1, 2)
    }
    for settings in ({"backend": "torch", "scores": ["recall"]}, {"device": "cpu"}):
        assert score(*batches, **settings) == pytest.approx(found)


def test_training_embeddings_are_for_utilization_only() -> None:
    queries, known = outputs(RANDOM[:12], CLASSES[:12]), outputs(RANDOM[12:], CLASSES[12:], "train")
    found = score(queries, known)
    alone = score(queries)
    e = RANDOM / RANDOM.norm(dim=1, keepdim=True)
    distance = torch.cdist(e[:12].double(), e[12:].double()).square().amin(1).mean()
    assert found["utilization"] == pytest.approx(distance.item(), rel=1e-5)
    assert {k: found[k] for k in alone} == alone
    assert found == score(queries, known)
    more = [score(queries, known, mixed_epochs=n)["utilization_mixed"] for n in (1, 2, 8)]
    assert found["utilization"] > more[0] > more[1] > more[2]
    assert score(queries, known, seed=1)["utilization_mixed"] != more[0]


def test_only_fractions_are_in_percent() -> None:
    """Two classes, each a point: all is found, at distance 0 within a class and 2 across."""
    e = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    found = score(
        outputs(e, [0, 0, 1, 1]), outputs(e, [0, 0, 1, 1], "train"), scores="all", ks=(1,)
    )
    assert found["alignment"] == pytest.approx(0) and found["utilization"] == pytest.approx(0)
    whole = {"recall@1", "precision@1", "r_precision", "map@r", "nmi"}
    assert all(found[name] == pytest.approx(100) for name in whole)
    assert found["uniformity"] == pytest.approx(np.log((4 + 8 * np.exp(-8)) / 12), rel=1e-5)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (outputs(RANDOM[:2], [0, 1], "trian"), r"a role in \('query', .*, got 'trian'"),
        (outputs(RANDOM[:2], [0, 1], "train"), r"no query among the roles \['train'\]"),
        ([{"gt_label": torch.tensor([1])}], r"needs data samples with pred_embedding"),
    ],
    ids=["role", "query", "embedding"],
)
def test_what_cannot_be_scored_is_said(batch: list[dict], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        score(batch)


def test_settings_that_are_not_allowed() -> None:
    with pytest.raises(ValueError, match="mixed_epochs >= 1, got 0"):
        RecallAtK(mixed_epochs=0)
    with pytest.raises(ValueError, match="needs scores of"):
        RecallAtK(scores="recal")
    with pytest.raises(ValueError, match=r"needs device None or one .*, got 'gpu'\."):
        RecallAtK(device="gpu")
    assert [RecallAtK(device=d).retrieval.device for d in (None, "cpu")] == [None, "cpu"]


def test_roles_come_from_the_split() -> None:
    """Although no pipeline is told to pack them."""
    for split, given, expected in (
        ("train", None, "train"),
        ("test", None, "query"),
        ("test", "gallery", "gallery"),
    ):
        spec = {"type": "mixplug.RetrievalDataset", "name": "digits", "split": split, "size": 8}
        pipeline = [{"type": "mmpretrain.PackInputs"}]
        data = DATASETS.build({**spec, "indices": 2, "pipeline": pipeline, "role": given})
        assert [item["data_samples"].metainfo["role"] for item in data] == [expected] * 2


def test_without_a_preprocessor_images_are_stacked() -> None:
    """As mmpretrain's classifiers do it: a batch of the loader is a list of images."""
    config = learner()
    del config["data_preprocessor"]
    model = MODELS.build(config)
    labels = torch.tensor([0, 0, 1, 1])
    batch = {
        "inputs": [torch.randint(256, (3, 8, 8), dtype=torch.uint8) for _ in labels],
        "data_samples": [DataSample().set_gt_label(label) for label in labels],
    }
    assert float(model(**model.data_preprocessor(batch, True), mode="loss")["loss"]) > 0
    samples = model.test_step(batch)
    images = torch.stack(batch["inputs"]).float()
    assert_close(torch.stack([s.pred_embedding for s in samples]), model.embed(images))
