"""A vision transformer as self-distillation uses it: class token, patches, queries and keys.

An :class:`Encoder` wraps a backbone and owns no parameters. The backbone runs its own forward
pass, with fused attention in every block. Queries and keys are read where the last block projects
them, so no attention matrix is built.

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
    """Tokens of B images, and the queries and keys of the last block.

    Attributes:
        cls: class tokens after the last norm, (B, D).
        patches: Z, patch tokens after the last norm, (B, N, D).
        queries: Q of the last block, as its attention uses them, (B, h, P + N, D / h).
        keys: K of the last block, (B, h, P + N, D / h).
        prefix: P, the number of tokens before the patches: the class token, then registers.
        grid: (rows, columns) of the N patches.
    """

    cls: Tensor
    patches: Tensor
    queries: Tensor
    keys: Tensor
    prefix: int
    grid: tuple[int, int]

    def every(self, step: int) -> Tokens:
        """Tokens of the images 0, step, 2 step and so on; these are views, nothing is copied."""
        parts = (self.cls[::step], self.patches[::step], self.queries[::step], self.keys[::step])
        return Tokens(*parts, self.prefix, self.grid)


class Encoder(ABC):
    """A vision transformer behind one interface, whichever package it comes from.

    Args:
        backbone: the network.
        mask_token: (D,), replaces the embeddings of masked patches; None allows no mask.

    Attributes:
        backbone: the network.
        mask_token: (D,) or None.
        width: D.
        depth: number of blocks.
        prefix: P.
        patch: (height, width) of a patch in pixels.
    """

    width: int
    depth: int
    prefix: int
    patch: tuple[int, int]

    def __init__(self, backbone: Any, mask_token: Tensor | None = None) -> None:
        self.backbone, self.mask_token = backbone, mask_token

    @property
    def heads(self) -> int:
        """h, the number of heads in the last block."""
        return int(self._attention.num_heads)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an image of (H, W) pixels.

        Raises:
            ValueError: the size is not a multiple of the patch, or the backbone has no position
                embeddings for it.
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

    def cls(self, x: Tensor, recompute: Sequence[str] = (), mask: Tensor | None = None) -> Tensor:
        """Class tokens (B, D) after the last norm.

        After the attention of the last block only the class token is computed.

        Args:
            x: images (B, 3, H, W).
            recompute: which intermediate results are computed again in the backward pass instead
                of being stored: some of :data:`RECOMPUTABLE`.
            mask: (B, N) bool, True where the mask token replaces the embedding of a patch, before
                positions are added; None replaces nothing.

        Raises:
            ValueError: see :meth:`grid`; a mask of another shape or dtype, or without mask token.
        """
        self.grid((x.shape[-2], x.shape[-1]))
        if self._must_run_whole:
            return self._masked_tokens(x, mask)[:, 0]
        with first_token(self._after_attention()), recomputed(self._pairs(recompute)):
            return self._masked_tokens(x, mask)[:, 0]

    def cls_and_patches(
        self, x: Tensor, recompute: Sequence[str] = (), mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class tokens (B, D) and patch tokens (B, N, D) after the last norm, in one pass.

        Args:
            x: images (B, 3, H, W).
            recompute: see :meth:`cls`.
            mask: see :meth:`cls`.

        Raises:
            ValueError: see :meth:`cls`; or the backbone drops patches.
        """
        rows, columns = self.grid((x.shape[-2], x.shape[-1]))
        if self._must_run_whole:
            tokens = self._masked_tokens(x, mask)
        else:
            with recomputed(self._pairs(recompute)):
                tokens = self._masked_tokens(x, mask)
        return self._split(tokens, rows * columns)

    def tokens(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """Class and patch tokens, queries and keys of images (B, 3, H, W), in one pass.

        Args:
            x: images (B, 3, H, W).
            mask: see :meth:`cls`.

        Raises:
            ValueError: see :meth:`cls_and_patches`.
        """
        grid = self.grid((x.shape[-2], x.shape[-1]))
        attention = self._attention
        with outputs_of(attention.qkv) as projected:
            cls, patches = self._split(self._masked_tokens(x, mask), grid[0] * grid[1])
        (qkv,) = projected
        q, k = queries_and_keys(attention, qkv)
        return Tokens(cls, patches, q, k, self.prefix, grid)

    @property
    @abstractmethod
    def _attention(self) -> Any:
        """The attention of the last block, which has ``qkv`` and ``num_heads``."""

    @abstractmethod
    def _after_attention(self) -> list[nn.Module]:
        """Layers after the last attention that treat every token separately."""

    @abstractmethod
    def _links(self, kind: str) -> list[Link]:
        """Norms or activations of all blocks, each with the linear layer that takes its output."""

    @abstractmethod
    def _tokens(self, x: Tensor) -> Tensor:
        """All tokens after the last norm, (B, P + N, D)."""

    @abstractmethod
    def set_heads(self, heads: int) -> None:
        """See :func:`mixplug.models.vit.encoder.set_heads`."""

    @abstractmethod
    def _require_size(self, size: tuple[int, int]) -> None:
        """Refuse an image size for which the backbone has no position embeddings."""

    @property
    def _must_run_whole(self) -> bool:
        """Whether the backbone checkpoints its blocks, or a compiler plans what is stored."""
        checkpoints = getattr(self.backbone, "grad_checkpointing", False)
        return bool(checkpoints or torch.compiler.is_compiling())

    def _pairs(self, recompute: Sequence[str]) -> list[Link]:
        return [pair for kind in recompute for pair in self._links(kind)]

    def _masked_tokens(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """All tokens after the last norm, the mask token at masked patches before positions."""
        if mask is None:
            return self._tokens(x)
        rows, columns = self.grid((x.shape[-2], x.shape[-1]))
        token = self._require_mask(mask, (len(x), rows * columns))
        with patches_replaced(self.backbone.patch_embed, mask.to(x.device), token):
            return self._tokens(x)

    def _require_mask(self, mask: Tensor, shape: tuple[int, int]) -> Tensor:
        if self.mask_token is None:
            raise ValueError(
                "A mask needs a mask token, and this encoder has none. A method of "
                "self-distillation gives one to its student by add_mask_token(); the teacher sees "
                "all patches."
            )
        if mask.dtype != torch.bool or tuple(mask.shape) != shape:
            raise ValueError(
                f"A mask needs to be bool and of shape (B, N) = {shape}, got {mask.dtype} of shape "
                f"{tuple(mask.shape)}."
            )
        return self.mask_token

    def _split(self, tokens: Tensor, patches: int) -> tuple[Tensor, Tensor]:
        if tokens.shape[1] != self.prefix + patches:
            raise ValueError(
                f"Patch tokens need all {patches} patches of an image, the backbone gives "
                f"{tokens.shape[1] - self.prefix}: build it without patch dropout "
                f"(patch_drop_rate=0)."
            )
        return tokens[:, 0], tokens[:, self.prefix :]


@contextmanager
def first_token(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Give modules only the first token, (B, 1, D) of (B, P + N, D), while the context is open.

    A residual connection around them adds their output to all tokens, of which only the first is
    then right. Other tokens get no gradient unless they are used.
    """
    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_pre_hook(lambda _module, inputs: (inputs[0][:, :1],))
            stack.callback(handle.remove)
        yield


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of a module while the context is open."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def patches_replaced(patch_embed: nn.Module, mask: Tensor, token: Tensor) -> Iterator[None]:
    """Replace embeddings of masked patches by a token while the context is open.

    Args:
        patch_embed: its output is (B, N, D) or (B, rows, columns, D), or a tuple that starts so.
        mask: (B, N) bool.
        token: (D,).
    """

    def replace(_module: nn.Module, _inputs: Any, out: Any) -> Any:
        patches, *rest = out if isinstance(out, tuple) else (out,)
        chosen = mask.view(*patches.shape[:-1], 1)
        patches = torch.where(chosen, token.to(patches.dtype), patches)
        return (patches, *rest) if isinstance(out, tuple) else patches

    handle = patch_embed.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
