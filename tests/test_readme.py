"""What README says of the methods, and what its examples do; test_blocks.py runs all of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from doc_blocks import one
from torch.nn.functional import one_hot

import mixplug

ROOT = Path(__file__).parents[1]


def test_the_loop_of_your_own() -> None:
    """As it stands, and with soft rows as targets; taps leave no trace in the state dict."""
    code = one("README.md", "python", "torchvision").code
    own = "loader = [(torch.randn(8, 3, 64, 64), torch.randint(10, (8,)))]  # yours\n"
    rows = (torch.randn(6, 3, 64, 64), one_hot(torch.arange(6), 10).float())
    for loader in (own, ""):
        names: dict = {"loader": [rows]}
        assert own in code
        exec(code.replace(own, loader), names)
        before = dict(names["torchvision"].models.resnet18(num_classes=10).state_dict())
        assert before.keys() == names["model"].state_dict().keys()
        assert torch.isfinite(names["mixed"].loss())


def test_the_detector_of_a_vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, from a checkpoint of a method whose ViT is the one that it names."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    monkeypatch.chdir(tmp_path)
    head = {"out_dim": 8, "hidden": 8, "bottleneck": 4}
    method = mixplug.build("DoRA", backbone="vit_small_patch16_224", head=head)
    torch.save({"state_dict": method.state_dict()}, "dora.pth")
    Path("my_config.py").write_text(one("README.md", "python", "TimmViT").code)
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


def test_the_stages_of_a_timm_model() -> None:
    names: dict = {}
    exec(one("timm_hooks/README.md", "python", "timm_stages").code, names)
    x = torch.randn(2, 3, 64, 64)
    model = names["stages"].model.eval()
    torch.testing.assert_close(names["stages"](x).logits, model(x))


def test_methods_table_names_the_catalog() -> None:
    table = re.findall(r"^\| `(\w+)` \(`(\w+)`\)", (ROOT / "README.md").read_text(), flags=re.M)
    wanted = sorted((e.name, e.alias) for e in mixplug.entries("mixer") if _ours(e))
    assert sorted(table) == wanted, f"README.md, Methods: rows { ({*table} ^ {*wanted}) } differ"


def test_methods_table_names_the_losses() -> None:
    rows = [row for row in (ROOT / "README.md").read_text().splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    missing = {e.name for e in mixplug.entries("loss")} - named
    assert not missing, f"README.md, Methods: there is no row of {missing}"


def test_doctor_finds_nothing_broken() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mixplug.cli", "doctor"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "compiled, nms keeps 1 of 2" in run.stdout


def _ours(entry: object) -> bool:
    return entry.target.__module__.startswith("mixplug.")
