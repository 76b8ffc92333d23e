"""Cache of a card: results under a key of weights, images, settings and mixplug's version."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import mixplug

Key = Mapping[str, Any]


class Store:
    """A folder of cached results. Files are replaced in one step, so none is incomplete.

    Args:
        root: the folder; it is created at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def tensors(self, name: str, key: Key) -> tuple[dict[str, Tensor], int] | None:
        """Saved tensors of a key and the number of images they cover; None if there are none."""
        path = self._path(name, key, "safetensors")
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                found = {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118
                return found, int(file.metadata()["done"])
        except (SafetensorError, OSError, TypeError, KeyError):
            return None  # a damaged file is computed again

    def done(self, name: str, key: Key) -> int:
        """Number of images that the saved tensors cover; the tensors are not read."""
        path = self._path(name, key, "safetensors")
        try:
            with safe_open(path, "pt") as file:
                return int(file.metadata()["done"])
        except (SafetensorError, OSError, TypeError, KeyError):
            return 0

    def save_tensors(self, name: str, key: Key, tensors: Mapping[str, Tensor], done: int) -> None:
        """Save tensors of the first ``done`` images, and replace earlier ones of that key."""
        path = self._path(name, key, "safetensors")
        ready = {one: tensor.detach().cpu().contiguous() for one, tensor in tensors.items()}
        self._write(path, lambda to: save_file(ready, to, {"done": str(done)}))

    def numbers(self, name: str, key: Key) -> dict[str, Any] | None:
        """Saved numbers of a key; None if there are none."""
        path = self._path(name, key, "json")
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["numbers"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def save_numbers(self, name: str, key: Key, numbers: Mapping[str, Any]) -> None:
        """Save numbers, and their key for readers of the file."""
        text = json.dumps({"key": key, "numbers": numbers}, indent=2)
        path = self._path(name, key, "json")
        self._write(path, lambda to: to.write_text(text + "\n", encoding="utf-8"))

    def _path(self, name: str, key: Key, suffix: str) -> Path:
        complete = {"version": mixplug.__version__, **key}
        digest = hashlib.sha256(json.dumps(complete, sort_keys=True).encode()).hexdigest()[:16]
        return self.root / f"{name}-{digest}.{suffix}"

    def _write(self, path: Path, write: Any) -> None:
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write(beside)
            os.replace(beside, path)
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error}") from error
