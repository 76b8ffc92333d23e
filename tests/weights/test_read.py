"""Checkpoints are read completely, and no code in them is executed."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weights import made

from mixplug.weights.read import Logs, read


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / 'evil'}"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


class Fetched:
    """Calls getattr like the pickle of logs, but on another object."""

    def __reduce__(self) -> tuple:
        return getattr, (argparse.Namespace, "__init__")


def test_all_of_a_dino_checkpoint(tmp_path: Path) -> None:
    values = {"numbers": [np.float32(0.25), np.int64(-3), np.bool_(True)], "array": np.arange(3.0)}
    path = made.dino(tmp_path / "a.pth", made.timm_vit(), made.timm_vit(), more=values)
    found, plain = read(path), torch.load(path, weights_only=False)
    assert found.keys() == plain.keys()
    assert found["args"] == argparse.Namespace(arch="vit_small", lr=5e-4, gpus=[0, 1])
    assert found["more"]["numbers"] == [0.25, -3, True]
    np.testing.assert_array_equal(found["more"]["array"], [0, 1, 2])
    for part in ("teacher", "student"):
        assert found[part].keys() == plain[part].keys()
        assert all(torch.equal(found[part][name], plain[part][name]) for name in plain[part])


def test_logs_are_read_without_mmengine(tmp_path: Path) -> None:
    path = made.mm(tmp_path / "a.pth", made.timm_vit(), made.timm_vit())
    logs = read(path)["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(logs, Logs)
    code = (
        "import sys; from mixplug.weights.read import read; found = read(sys.argv[1]); "
        "print(len(found), [n for n in ('mmengine', 'mmcv', 'timm') if n in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "3 []"


def test_numbers_from_numpy_1(tmp_path: Path) -> None:
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save({"args": argparse.Namespace(lr=np.float64(0.5)), "w": torch.arange(3.0)}, new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(name, data)
    found = read(old)
    assert found["args"].lr == 0.5 and found["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "args"])
def test_a_malicious_pickle_is_an_error_and_does_not_run(form: str, tmp_path: Path) -> None:
    path, evil = tmp_path / "evil.pth", Evil(tmp_path)
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": evil}, protocol=2))
    elif form == "args":
        made.dino(path, made.timm_vit(), made.timm_vit(), args=argparse.Namespace(x=evil))
    else:
        torch.save({"a": evil}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        ValueError, match=r"evil.pth is not a checkpoint of weights: it contains"
    ) as caught:
        read(path)
    assert f"{os.name}.system, which is neither loaded nor run" in str(caught.value)
    assert not (tmp_path / "evil").exists()
    pickle.loads(pickle.dumps(evil))
    assert (tmp_path / "evil").exists()  # unpickling runs it


def test_getattr_is_only_for_logs(tmp_path: Path) -> None:
    torch.save({"a": Fetched()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"it contains builtins.getattr, which is neither"):
        read(tmp_path / "a.pth")


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no checkpoint .*no.pth"):
        read(tmp_path / "no.pth")
    save_file({"a": torch.arange(3.0)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.randn(40)}, tmp_path / "a.pth")
    assert read(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2]
    for name in ("a.safetensors", "a.pth"):
        whole = (tmp_path / name).read_bytes()
        for data in (whole[:-20], whole[:5], b"", b"<html>not found</html>"):
            (tmp_path / f"b_{name}").write_bytes(data)
            with pytest.raises(ValueError, match=f"b_{name} is not a checkpoint of weights"):
                read(tmp_path / f"b_{name}")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must contain a state dict of tensors, got a list"):
        read(tmp_path / "list.pth")
