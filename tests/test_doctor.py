"""``mixplug doctor``: all extras, what is missing and broken, and advice that fits the install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mixplug
from mixplug import doctor, optional
from mixplug.cli import app
from mixplug.doctor import Finding

ROOT = Path(mixplug.__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
EXTRAS = [
    line.partition(" = ")[0]
    for line in PYPROJECT.split("[project.optional-dependencies]\n")[1].split("\n\n")[0].split("\n")
    if " = [" in line
]


def found() -> dict[str, Finding]:
    return {finding.subject: finding for finding in doctor.examine()}


@pytest.fixture(scope="module")
def all_found() -> dict[str, Finding]:
    return found()


def absent(monkeypatch: pytest.MonkeyPatch, *distributions: str) -> None:
    """Make these distributions look as if they were not installed."""
    known = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda d: None if d in distributions else known(d))


def test_it_knows_every_extra_of_pyproject(all_found: dict[str, Finding]) -> None:
    assert {"video", "torchcodec", "mm", "umap"} <= {*EXTRAS} == {*doctor.extras()}
    assert {f"extra {extra}" for extra in EXTRAS} <= {*all_found}
    for name in ("av", "scenedetect", "sklearn", "skvideo", "faiss", "torchcodec", "jinja2"):
        assert all_found[name].state == "ok" and all_found[name].seen[0].isdecimal()
    for extra in EXTRAS:
        assert all_found[f"extra {extra}"] == Finding(f"extra {extra}", "complete")


def test_an_extra_that_includes_another_has_its_distributions() -> None:
    extras = doctor.extras()
    assert {*extras["mm"], "onedl-mmdetection"} <= {*extras["mmdet"]}
    assert not [name for names in extras.values() for name in names if "mixplug" in name]


def test_metadata_say_the_same_where_there_is_no_pyproject(monkeypatch) -> None:
    of_project = doctor.extras()
    lines = [
        f"{name}>=1; extra == '{extra}'" for extra, names in of_project.items() for name in names
    ]
    monkeypatch.setattr(doctor, "checkout", lambda: None)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["torch>=2.6", *lines])
    assert doctor.extras() == of_project
    nested = ["mixplug[b] ; extra == 'a'", 'X.y ; extra == "b"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: nested)
    assert doctor.extras() == {"a": ["x.y"], "b": ["x.y"]}


def test_a_missing_extra_is_named_with_the_line_that_installs_it(monkeypatch) -> None:
    absent(monkeypatch, "onedl-mmcv", "mmcv", "av")
    seen = found()
    assert seen["onedl-mmcv"] == Finding("onedl-mmcv", "not installed", "missing")
    assert seen["extra mm"] == Finding("extra mm", "uv sync --inexact --extra mm", "missing")
    assert seen["extra video"].seen == "uv sync --inexact --extra video"
    assert "mmcv ops" not in seen  # not examined if it is missing
    assert seen["timm.task"].state == "ok"


def test_it_examines_mmdet_and_mmseg(monkeypatch, all_found: dict[str, Finding]) -> None:
    for host in ("mmdet", "mmseg"):
        assert all_found[host].state == "ok" and all_found[host].seen[0].isdecimal()
        assert all_found[f"{host} backbone"].seen == "mixplug.TimmViT builds"
    absent(monkeypatch, "onedl-mmsegmentation", "mmsegmentation")
    seen = found()
    assert seen["extra mmseg"].seen == "uv sync --inexact --extra mmseg"
    assert "mmseg backbone" not in seen and seen["mmdet backbone"].state == "ok"


def test_the_originals_count_like_their_forks(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "version_of", {"mmdet": "3.3.0"}.get)
    monkeypatch.setattr(doctor, "_import_name", lambda name: name)
    assert doctor._installed("onedl-mmdetection") == Finding("mmdet", "3.3.0")


def test_a_broken_import_is_reported(monkeypatch) -> None:
    def fail(name: str) -> types.ModuleType:
        raise OSError("libfoo.so: cannot open\nmore")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    finding = doctor._installed("timm")
    assert (finding.subject, finding.state) == ("timm", "broken")
    assert finding.seen.endswith("import fails: OSError: libfoo.so: cannot open")


def test_forks_beside_their_originals_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda dist: "2.2.0")
    monkeypatch.setattr(doctor, "_import_name", lambda dist: "json")
    last = list(doctor.examine())[-1]
    assert last.subject == "OpenMMLab" and last.state == "broken"
    assert last.seen.startswith(
        "mmengine, mmcv, mmpretrain, mmdet, mmsegmentation are installed next to their forks"
    )


def test_it_exits_with_one_where_something_is_broken(monkeypatch) -> None:
    findings = [Finding("torch", "2", "ok"), Finding("timm", "not installed", "missing")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0  # missing is a choice
    findings.append(Finding("mmcv ops", "ImportError: no mmcv._ext", "broken"))
    run = CliRunner().invoke(app, ["doctor"])
    assert run.exit_code == 1 and "no mmcv._ext" in run.output


def test_square_brackets_of_the_advice_are_printed(monkeypatch) -> None:
    findings = [Finding("extra video", "pip install 'mixplug[video]'", "missing")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    assert "pip install 'mixplug[video]'" in CliRunner().invoke(app, ["doctor"]).output


ADVICE = """
import json
from mixplug import doctor, optional
try:
    optional.optional("no_such_module", "video", "A video")
except ImportError as error:
    print(json.dumps([optional.install_line("video"), str(error), doctor.extras()]))
"""


def advice(folder: Path) -> tuple[str, str, dict[str, list[str]]]:
    """What the mixplug of a folder says in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", ADVICE], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What pip would lay down: the package and its metadata, with an extra that is new."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mixplug", tmp_path / "mixplug", ignore=ignored)
    info = tmp_path / "mixplug-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: mixplug\nVersion: 9.9\nProvides-Extra: video\n"
        "Requires-Dist: torch>=2.6\nRequires-Dist: av>=14; extra == 'video'\n"
        "Provides-Extra: brand-new\nRequires-Dist: some_thing; extra == 'brand-new'\n"
    )
    return tmp_path


def test_from_a_wheel_the_advice_is_pip(installed: Path) -> None:
    (installed / "pyproject.toml").write_text('[project]\nname = "of-another-package"\n')
    line, error, extras = advice(installed)
    assert line == "pip install 'mixplug[video]'"
    assert error == (
        "A video needs no_such_module, which is not installed. Install it with: "
        "pip install 'mixplug[video]'"
    )
    assert extras == {"video": ["av"], "brand-new": ["some_thing"]}


def test_in_a_checkout_the_advice_is_uv(installed: Path) -> None:
    new = 'brand-newer = ["some_other>=3"]'
    table = "[project.optional-dependencies]"
    (installed / "pyproject.toml").write_text(PYPROJECT.replace(table, f"{table}\n{new}"))
    line, error, extras = advice(installed)
    assert line == "uv sync --inexact --extra video" and error.endswith(line)
    if sys.version_info >= (3, 11):  # with tomllib
        assert extras["brand-newer"] == ["some_other"] and {*EXTRAS} < {*extras}


def test_this_is_a_checkout() -> None:
    assert optional.checkout() == ROOT
