"""Every example of the READMEs is run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

import mixplug
from timm_hooks import train as timm_train

ROOT = Path(__file__).parents[1]


def blocks(path: str, language: str) -> list[str]:
    text = (ROOT / path).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def block(path: str, language: str, having: str) -> str:
    found = [code for code in blocks(path, language) if having in code]
    assert len(found) == 1, f"{path} has {len(found)} {language} blocks with {having!r}"
    return found[0]


def test_every_python_block_is_tested() -> None:
    assert len(blocks("README.md", "python")) == 4
    assert len(blocks("timm_hooks/README.md", "python")) == 1


def test_the_loop_of_your_own() -> None:
    """As it stands, and with soft rows as targets; taps leave no trace in the state dict."""
    code = block("README.md", "python", "torchvision")
    own = "loader = [(torch.randn(8, 3, 64, 64), torch.randint(10, (8,)))]  # yours\n"
    rows = (torch.randn(6, 3, 64, 64), one_hot(torch.arange(6), 10).float())
    for loader in (own, ""):
        names: dict = {"loader": [rows]}
        assert own in code
        exec(code.replace(own, loader), names)
        before = dict(names["torchvision"].models.resnet18(num_classes=10).state_dict())
        assert before.keys() == names["model"].state_dict().keys()
        assert torch.isfinite(names["mixed"].loss())


def test_every_command_is_one() -> None:
    from typer.testing import CliRunner

    from mixplug.cli import app

    text = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*/*.md")])
    named = set(re.findall(r"mixplug ((?:video|viz|weights|demo|bench|eval) [a-z]+)", text))
    assert {"video index", "viz alignment", "weights convert", "demo dora", "bench dora"} <= named
    for command in named:
        run = CliRunner().invoke(app, [*command.split(), "--help"])
        assert run.exit_code == 0, command


def test_the_mm_config(tmp_path: Path) -> None:
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    from mixplug.hosts.mm.mixing.classifier import train_with

    path = tmp_path / "my_config.py"
    path.write_text(block("README.md", "python", "mmpretrain::"))
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    model = MODELS.build({**config.model, "data_preprocessor": config.data_preprocessor})
    names = set(model.state_dict())
    train_with(model, mixplug.build(config.mixup))
    assert set(model.state_dict()) == names
    assert type(model.mixer) is mixplug.dense_multimix


def test_the_detector_of_a_vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, from a checkpoint of a method whose ViT is the one that it names."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    monkeypatch.chdir(tmp_path)
    head = {"out_dim": 8, "hidden": 8, "bottleneck": 4}
    method = mixplug.build("DoRA", backbone="vit_small_patch16_224", head=head)
    torch.save({"state_dict": method.state_dict()}, "dora.pth")
    Path("my_config.py").write_text(block("README.md", "python", "TimmViT"))
    config = Config.fromfile("my_config.py")
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
        model.backbone.init_weights()
    teacher = method.teacher.backbone.state_dict()
    own = model.backbone.model.state_dict()
    assert [name for name in own if not torch.equal(own[name], teacher[name])] == []
    levels = model.extract_feat(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape[2:]) for level in levels] == [
        (16, 24), (8, 12), (4, 6), (2, 3), (1, 2),
    ]  # fmt: skip


def test_the_metric_learner() -> None:
    """The config as it stands builds R-50; its evaluator scores what the model predicts."""
    from mixplug.registry import METRICS, MODELS

    config = {}
    exec(block("README.md", "python", "MetricLearner"), config)
    model = MODELS.build(config["model"])
    assert model.loss.loss.name == "MultiSimilarity" and model.loss.levels == ("feature",)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 512)
    assert METRICS.build(config["val_evaluator"]).retrieval.ks == (1, 2, 4, 8)


def test_the_stages_of_a_timm_model() -> None:
    names: dict = {}
    exec(block("timm_hooks/README.md", "python", "timm_stages"), names)
    x = torch.randn(2, 3, 64, 64)
    model = names["stages"].model.eval()
    torch.testing.assert_close(names["stages"](x).logits, model(x))


@pytest.mark.parametrize("path", ["README.md"])
def test_the_timm_command_is_understood(path: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.touch()
    command = block(path, "console", "timm_hooks.train").replace("\\\n", " ").lstrip("$ ")
    words = shlex.split(command.replace("/path/to/timm/train.py", str(script)))
    assert words[:3] == ["python", "-m", "timm_hooks.train"]
    found, impl, settings, rest = timm_train.split_arguments(words[3:])
    assert (found, impl, settings) == (str(script), "mixplug.alignmix", {"alpha": 2.0, "eps": 0.1})
    assert rest[0] == "/data/imagenet" and "--model-ema" in rest
    mixplug.build(impl, **settings)


def test_methods_table_names_the_catalog() -> None:
    table = re.findall(r"^\| `(\w+)` \(`(\w+)`\)", (ROOT / "README.md").read_text(), flags=re.M)
    assert sorted(table) == sorted((e.name, e.alias) for e in mixplug.entries("mixer") if _ours(e))


def test_methods_table_names_the_losses() -> None:
    rows = [row for row in (ROOT / "README.md").read_text().splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {e.name for e in mixplug.entries("loss")} <= named


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", "\n".join(blocks("README.md", "console"))):
        assert f"\n{target}:" in makefile
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_doctor_finds_nothing_broken() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mixplug.cli", "doctor"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "compiled, nms keeps 1 of 2" in run.stdout


def _ours(entry: object) -> bool:
    return entry.target.__module__.startswith("mixplug.")
