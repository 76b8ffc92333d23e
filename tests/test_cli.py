"""The command line: help, train and test."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mixplug
from mixplug import cli
from mixplug.cli import tools


def invoke(*arguments: str) -> object:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "100"})


def test_help_imports_nothing_heavy() -> None:
    """Neither the command nor its groups, which are imported to be listed."""
    code = (
        "import sys; from mixplug.cli import app\n"
        "try: app(['viz', '--help'])\n"
        "except SystemExit: print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed, _, loaded = run.stdout.strip().rpartition("\n")
    assert "positivity" in printed and "'typer'" in loaded
    assert not [name for name in ("torch", "numpy", "mmengine", "matplotlib") if name in loaded]


def test_train_runs_the_stock_tool_with_all_arguments(monkeypatch) -> None:
    ran = []
    monkeypatch.setattr(
        tools.runpy, "run_path", lambda path, run_name: ran.append((path, sys.argv))
    )
    monkeypatch.setattr(sys, "argv", ["mixplug"])
    name = "dense-multimix_wrn10-1_1xb64-10e_digits"
    run = invoke("train", name, "--work-dir", "x", "--cfg-options", "a=1")
    assert run.exit_code == 0, run.output
    path, argv = ran[0]
    assert Path(path).parts[-4:] == ("mmpretrain", ".mim", "tools", "train.py")
    assert Path(path).is_file()
    assert Path(argv[1]).is_file() and Path(argv[1]).stem == name
    assert argv[2:] == ["--work-dir", "x", "--cfg-options", "a=1"]


def test_train_suggests_similar_configs() -> None:
    run = invoke("train", "dense-multimix_wrn10-1_1xb64-10e_digitz")
    assert run.exit_code == 2
    words = run.output.replace("│", " ").split()
    assert "dense-multimix_wrn10-1_1xb64-10e_digits" in "".join(words)


def test_train_suggests_configs_in_the_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_config.py").write_text("")
    run = invoke("train", "my_confg.py")
    assert run.exit_code == 2 and "my_config.py" in run.output


def test_test_needs_an_existing_checkpoint() -> None:
    run = invoke("test", "dense-multimix_wrn10-1_1xb64-10e_digits", "nope.pth")
    assert run.exit_code == 2 and "no checkpoint nope.pth" in run.output


def test_a_missing_extra_is_one_line(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mmpretrain", None)
    result = invoke("train", "dense-multimix_wrn10-1_1xb64-10e_digits")
    assert result.exit_code == 1
    assert "uv sync --inexact --extra mm" in result.output


@pytest.mark.parametrize("name", ["alignmix", "DenseMultiMix"])
def test_names_of_the_catalog_are_attributes(name: str) -> None:
    assert mixplug.build({"type": name}).name == getattr(mixplug, name).__name__


def test_unknown_attribute_suggests() -> None:
    with pytest.raises(AttributeError, match="Did you mean 'AlignMixup'"):
        mixplug.alignmixx  # noqa: B018
