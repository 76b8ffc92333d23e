"""Read checkpoints without running what is in them."""

from __future__ import annotations

import argparse
import importlib.util
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

_LOGS = "mmengine.logging.history_buffer.HistoryBuffer"
_NUMBERS = "?bBhHiIlLqQefd"  # numpy's codes of what a number can be
_NAMED = re.compile(r"GLOBAL ([\w.]+)")  # in what torch says of an object that it does not load
_DAMAGE = (
    UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)


class Logs:
    """What mmengine's logs are read as, whether or not it is installed: nothing needs them."""


def read(path: str | Path) -> Mapping[str, Any]:
    """All of a checkpoint, on the CPU; of what is in it, nothing is run.

    Besides tensors and plain Python, only what DINO, DoRA, timm and mmengine save beside weights is
    loaded: an ``argparse.Namespace``, numpy's numbers and arrays, and logs (as :class:`Logs`).

    Args:
        path: .safetensors, or what ``torch.save`` has written.

    Raises:
        ValueError: no such file, a damaged one, or one with other objects, which it names.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}.")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} has no state dict of tensors, but a {type(found).__name__}.")
    return found


def no_code(path: str | Path) -> None:
    """Refuse a file of which ``torch.load`` would run something, as hosts call it on any name.

    Raises:
        ValueError: see :func:`read`.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and not tarfile.is_tarfile(path):
        read(path)  # an archive has room for a header of safetensors before it
    else:
        _read_pickle(path)


def could_be_torch(path: str | Path) -> bool:
    """Whether a file begins like one of ``torch.save``, of any version, or like a pickle."""
    with Path(path).open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        if not zipfile.is_zipfile(path):
            return True  # cut short, which whoever reads it says
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    pickled = start[:1] == b"\x80" and start[1:] in (b"\2", b"\3", b"\4", b"\5")
    return pickled or tarfile.is_tarfile(path)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no checkpoint of weights: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        named = _NAMED.search(str(error))
        why = (
            f"it holds {named[1]}, which is neither loaded nor run"
            if named
            else f"it is damaged, or holds other objects, which are not loaded "
            f"({type(error).__name__})"
        )
        is_class = named is not None and named[1].rpartition(".")[2][:1].isupper()
        mend = " Of a whole model, save model.state_dict() instead." if is_class else ""
        raise ValueError(f"{path} is no checkpoint of weights: {why}.{mend}") from error


def _allowed() -> list[Any]:
    """Classes and functions that a checkpoint may name; a pair has the name that it is saved by."""
    known = [argparse.Namespace, (Logs, _LOGS), (_method_of_logs, "builtins.getattr")]
    if importlib.util.find_spec("numpy") is None:
        return known
    import numpy as np

    inner: Any = np._core if hasattr(np, "_core") else np.core  # since numpy 2, and before
    kinds = {type(np.dtype(code)) for code in _NUMBERS}
    built = [
        (getattr(inner.multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for core in ("core", "_core")
    ]
    return [*known, np.ndarray, np.dtype, *kinds, *built]


def _method_of_logs(owner: object, name: str) -> object:
    """What the pickle of logs takes getattr for, and nothing else."""
    if owner is not Logs:
        raise UnpicklingError(f"GLOBAL builtins.getattr of {owner!r}")
    return name
