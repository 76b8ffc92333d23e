"""A package that registers a mixer and a number by an entry point; configs do not name it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hosts.hosting import HERE, TIMM_FLAGS, TimmRun, mim_tools, mm_config

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

PACKAGE = HERE / "plugin_package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip would lay it down: its module, and a dist-info with its entry points."""
    root = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    module = project["name"].replace("-", "_")
    shutil.copytree(PACKAGE / module, root / module, ignore=shutil.ignore_patterns("__pycache__"))
    info = root / f"{module}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in group_points.items())
        for group, group_points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    return root


def run(site: Path, cwd: Path, *command: object) -> str:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_without_the_package_the_name_is_unknown() -> None:
    import mixplug

    with pytest.raises(KeyError, match="There is no mixer 'MirrorMix'"):
        mixplug.build("MirrorMix", kind="mixer")


def test_its_name_is_a_key_of_mm_configs(site: Path, tmp_path: Path) -> None:
    config = mm_config(tmp_path / "work", {"type": "MirrorMix", "lam": 0.25})
    config.custom_imports = {"imports": ["mixplug.mm"]}
    config.val_evaluator = [{"type": "mixplug.CalibrationError"}, {"type": "Accuracy"}]
    config.dump(tmp_path / "config.py")
    out = run(site, tmp_path, mim_tools() / "train.py", tmp_path / "config.py")
    assert out.count("MirrorMix mixes at lam=0.25") == 4
    assert (tmp_path / "work" / "epoch_1.pth").exists()
    (log,) = (tmp_path / "work").glob("*/vis_data/scalars.json")
    scores = json.loads(log.read_text().splitlines()[-1])
    assert {"ece", "brier", "margin"} <= scores.keys()


@pytest.mark.parametrize(
    "impl", ["mixplug.mirrormix", "mixplug_plugin_example.MirrorMix"], ids=["alias", "dotted-path"]
)
def test_timm_hooks_takes_it(impl: str, site: Path, image_folder: Path, tmp_path: Path) -> None:
    flags = ["--data-dir", image_folder, *TIMM_FLAGS, "--output", tmp_path, "--experiment", "run"]
    mixer = ["--mixup-impl", impl, "--mixup-args", "lam=0.75"]
    out = run(site, tmp_path, "-m", "timm_hooks.train", HERE / "train.py", *flags, *mixer)
    assert out.count("MirrorMix mixes at lam=0.75") == 4
    checkpoint = TimmRun(tmp_path / "run").checkpoint
    assert all(isinstance(value, torch.Tensor) for value in checkpoint["state_dict"].values())
    assert checkpoint["task_state"]["mixplug"]["step"] == 4
