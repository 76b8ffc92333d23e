"""A builder of frozen helper networks with weights from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mixplug.weights import load, read

_WEIGHTS = ("state_dict", "model")  # where checkpoints keep them


@dataclass(frozen=True)
class FromFile:
    """Builds a network and loads its weights from a file, all of them.

    ::

        def frozen(self):
            return {"teacher": FromFile(resnet18, self.teacher, sha256="f37072fd")}

    Attributes:
        build: makes the network, with any weights.
        file: .safetensors, or what ``torch.save`` has written; it is read with
            ``weights_only=True``.
        sha256: the file's hash, or at least its first 8 digits; None does not check.
        source: where one gets the file, for the message if it is missing.
    """

    build: Callable[[], nn.Module]
    file: str | Path
    sha256: str | None = None
    source: str = ""

    def __call__(self) -> nn.Module:
        """The network with its weights.

        Raises:
            ValueError: no such file, another hash, or weights of another network.
        """
        path = Path(self.file)
        if not path.is_file():
            where = f" Get it from {self.source}." if self.source else ""
            raise ValueError(f"its weights {path.absolute()} do not exist.{where}")
        self._require_hash(path)
        network, state = self.build(), read(path)
        inner = [state[key] for key in _WEIGHTS if isinstance(state.get(key), Mapping)]
        load(network, inner[0] if inner else state, min_loaded=1.0, source=str(path))
        return network

    def _require_hash(self, path: Path) -> None:
        if self.sha256 is None:
            return
        if len(self.sha256) < 8:
            raise ValueError(f"sha256 needs at least 8 digits, got {self.sha256!r}.")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(self.sha256.lower()):
            raise ValueError(
                f"{path} is another file than the one needed: its sha256 is {digest}, and not "
                f"{self.sha256}."
            )
