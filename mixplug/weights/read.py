"""Read checkpoints without executing code in them."""

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
_NUMBERS = "?bBhHiIlLqQefd"  # numpy's codes of number types
_NAMED = re.compile(r"GLOBAL ([\w.]+)")  # in torch's error for an object that it does not load
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
    """Placeholder for mmengine's logs, with or without mmengine; nothing needs their content."""


def read(path: str | Path) -> Mapping[str, Any]:
    """Read a whole checkpoint to the CPU; no code in it is executed.

    Besides tensors and plain Python objects, only objects that DINO, DoRA, timm and mmengine save
    with their weights are loaded: an ``argparse.Namespace``, numpy's numbers and arrays, and logs
    (as :class:`Logs`).

    Args:
        path: a .safetensors file, or a file that ``torch.save`` wrote.

    Raises:
        ValueError: a missing or damaged file, or a file with other objects, which the message
            names.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}.")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{path} must contain a state dict of tensors, got a {type(found).__name__}."
        )
    return found


def check_no_code(path: str | Path) -> None:
    """Refuse a file from which ``torch.load`` would execute code, whatever its name is.

    Raises:
        ValueError: see :func:`read`.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and not tarfile.is_tarfile(path):
        read(path)  # an archive can start with a valid safetensors header
    else:
        _read_pickle(path)


def could_be_torch(path: str | Path) -> bool:
    """Whether a file starts like a file of ``torch.save``, of any version, or like a pickle."""
    with Path(path).open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        if not zipfile.is_zipfile(path):
            return True  # truncated; reading it gives the error
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
        raise ValueError(f"{path} is not a checkpoint of weights: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        named = _NAMED.search(str(error))
        cause = (
            f"it contains {named[1]}, which is neither loaded nor run"
            if named
            else f"it is damaged, or contains other objects, which are not loaded "
            f"({type(error).__name__})"
        )
        is_class = named is not None and named[1].rpartition(".")[2][:1].isupper()
        advice = " Save model.state_dict() instead of a whole model." if is_class else ""
        raise ValueError(f"{path} is not a checkpoint of weights: {cause}.{advice}") from error


def _allowed() -> list[Any]:
    """Classes and functions that a checkpoint may use; a pair also gives the name in the file."""
    known = [argparse.Namespace, (Logs, _LOGS), (_method_of_logs, "builtins.getattr")]
    if importlib.util.find_spec("numpy") is None:
        return known
    import numpy as np

    inner: Any = np._core if hasattr(np, "_core") else np.core  # numpy 2, numpy 1
    kinds = {type(np.dtype(code)) for code in _NUMBERS}
    constructors = [
        (getattr(inner.multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for core in ("core", "_core")
    ]
    return [*known, np.ndarray, np.dtype, *kinds, *constructors]


def _method_of_logs(owner: object, name: str) -> object:
    """Stands in for getattr, only for the pickles of logs."""
    if owner is not Logs:
        raise UnpicklingError(f"GLOBAL builtins.getattr of {owner!r}")
    return name
