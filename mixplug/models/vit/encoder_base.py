"""A vision transformer as self-distillation sees it: class token, patches, queries and keys.

An :class:`Encoder` is a view onto a backbone and owns no parameters. The backbone runs its own
forward, with fused attention in every block; queries and keys are caught where the last block
projects them, so that no attention matrix is ever made.

Letters: B images, N patches in a grid, P prefix tokens, h heads, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.models.vit.recompute import Link, recomputed
from mixplug.stages.attention import queries_and_keys

RECOMPUTABLE = ("norm", "activation")


@dataclass(frozen=True)
class Tokens:
    """What the tracker needs of B images.

    Attributes:
        cls: class tokens after the last norm, (B, D).
        patches: Z, patch tokens after the last norm, (B, N, D).
        queries: Q of the last block, as it attends with them, (B, h, P + N, D / h).
        keys: K, likewise.
        prefix: P, the class token first, then registers.
        grid: (rows, columns) of the N patches.
    """

    cls: Tensor
    patches: Tensor
    queries: Tensor
    keys: Tensor
    prefix: int
    grid: tuple[int, int]

    def every(self, step: int) -> Tokens:
        """Those of images 0, step, 2 step and so on; views, nothing is copied."""
        parts = (self.cls[::step], self.patches[::step], self.queries[::step], self.keys[::step])
        return Tokens(*parts, self.prefix, self.grid)


class Encoder(ABC):
    """A view onto a vision transformer.

    Attributes:
        backbone: the network.
        width: D.
        depth: number of blocks.
        prefix: P.
        patch: (height, width) of a patch in pixels.
    """

    width: int
    depth: int
    prefix: int
    patch: tuple[int, int]

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone

    @property
    def heads(self) -> int:
        """Their number h in the last block."""
        return int(self._attention.num_heads)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an image of (H, W).

        Raises:
            ValueError: the size is no multiple of the patch, or one that the backbone is not for.
        """
        rows, columns = (side // part for side, part in zip(size, self.patch, strict=True))
        if (rows * self.patch[0], columns * self.patch[1]) != tuple(size) or not rows * columns:
            raise ValueError(
                f"Images of {size[0]} x {size[1]} pixels are not divisible by the patch of "
                f"{self.patch[0]} x {self.patch[1]}: the nearest size is "
                f"{max(1, rows) * self.patch[0]} x {max(1, columns) * self.patch[1]}."
            )
        self._require_size(size)
        return rows, columns

    def cls(self, x: Tensor, recompute: Sequence[str] = ()) -> Tensor:
        """Class tokens (B, D) after the last norm, of images (B, 3, H, W).

        Only they go on when the last block has attended.

        Args:
            x: images.
            recompute: what is made again in the backward pass and not kept, of
                :data:`RECOMPUTABLE`.

        Raises:
            ValueError: see :meth:`grid`.
        """
        self.grid((x.shape[-2], x.shape[-1]))
        again = getattr(self.backbone, "grad_checkpointing", False)  # runs blocks by itself
        if again or torch.compiler.is_compiling():  # or plans by itself what to keep
            return self._tokens(x)[:, 0]
        pairs = [pair for kind in recompute for pair in self._links(kind)]
        with first_token(self._after_attention()), recomputed(pairs):
            return self._tokens(x)[:, 0]

    def tokens(self, x: Tensor) -> Tokens:
        """What the tracker needs of images (B, 3, H, W); a single pass.

        Raises:
            ValueError: see :meth:`grid`.
        """
        grid = self.grid((x.shape[-2], x.shape[-1]))
        attention = self._attention
        with caught(attention.qkv) as projected:
            out = self._tokens(x)
        (qkv,) = projected
        q, k = queries_and_keys(attention, qkv)
        return Tokens(out[:, 0], out[:, self.prefix :], q, k, self.prefix, grid)

    @property
    @abstractmethod
    def _attention(self) -> Any:
        """The last block's attention, with ``qkv`` and ``num_heads``."""

    @abstractmethod
    def _after_attention(self) -> list[nn.Module]:
        """Layers from the last attention on, of which each takes every token by itself."""

    @abstractmethod
    def _links(self, kind: str) -> list[Link]:
        """Norms or activations of all blocks, and the linear layers that take what they give."""

    @abstractmethod
    def _tokens(self, x: Tensor) -> Tensor:
        """All tokens after the last norm, (B, P + N, D)."""

    @abstractmethod
    def set_heads(self, heads: int) -> None:
        """See :func:`mixplug.models.vit.encoder.set_heads`."""

    @abstractmethod
    def _require_size(self, size: tuple[int, int]) -> None:
        """Refuse a size that the backbone has no positions for."""


@contextmanager
def first_token(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules see the first token only, (B, 1, D) of (B, P + N, D), while this is open.

    A residual connection around them adds what they give to all tokens, of which only the first
    is then what it would be. No gradient comes from the others unless they are used.
    """
    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_pre_hook(lambda _module, inputs: (inputs[0][:, :1],))
            stack.callback(handle.remove)
        yield


@contextmanager
def caught(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module gives while the context is open."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    try:
        yield outputs
    finally:
        handle.remove()
