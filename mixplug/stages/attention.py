"""Class-to-patch attention of a transformer block, computed again from its qkv projection.

The block itself keeps its fused attention, which never makes the matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mixplug.functional.track import cls_attention
from mixplug.layouts import Layout
from mixplug.stages.taps import Step

# Where the classes are that project queries, keys and values at once and compare them by a plain
# scaled product. What the host has not imported is in no model, so nothing is imported here.
_KNOWN = (
    ("timm.layers.attention", "Attention"),
    ("mmpretrain.models.utils.attention", "MultiheadAttention"),
)


@dataclass(frozen=True)
class ClassAttention:
    """The attention of one block.

    Attributes:
        name: of the attention module in the model.
        module: that module.
        prefix: number of tokens before the patches, of which the first is the class token.
    """

    name: str
    module: nn.Module
    prefix: int

    @property
    def projection(self) -> str:
        """Name of the layer that projects queries, keys and values."""
        return f"{self.name}.qkv"

    def of(self, qkv: Tensor) -> Tensor:
        """Attention of the class token to the N patches, (B, N), mean over heads, detached.

        Args:
            qkv: what the projection gave, (B, P + N, 3 D).
        """
        with torch.no_grad():
            q, k = queries_and_keys(self.module, qkv.detach())
            return cls_attention(q, k, self.prefix).mean(1)


class KeptAttention:
    """Attention of the blocks that a mixer asked for, of the last pass."""

    def __init__(self) -> None:
        self._blocks: dict[int | None, ClassAttention] = {}
        self._seen: dict[int | None, Tensor] = {}

    def keep(self, block: int | None, attention: ClassAttention) -> None:
        """From now on passes keep this attention."""
        self._blocks[block] = attention

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Name of every projection, and what a pass does there; the last pass is forgotten."""
        self._seen.clear()
        for block, attention in self._blocks.items():
            note = partial(self._seen.__setitem__, block)
            yield attention.projection, partial(see_attention, attention, note)

    def of(self, block: int | None) -> Tensor:
        """(B, N) of the last pass.

        Raises:
            ValueError: it was not kept, or there was no pass.
        """
        if block not in self._blocks:
            raise ValueError(
                f"No pass has kept the attention of block {block}: call "
                f"stages.keep_attention({'' if block is None else block}) in the mixer's attach."
            )
        if block not in self._seen:
            raise ValueError("There is no attention yet: run the model first.")
        return self._seen[block]


def see_attention(
    attention: ClassAttention, note: Callable[[Tensor], object], qkv: Tensor
) -> Tensor:
    """Note the attention that a projection's output gives, and leave that output as it is."""
    note(attention.of(qkv))
    return qkv


def queries_and_keys(attention: Any, qkv: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys as a block compares them, (B, h, P + N, D / h) each.

    Args:
        attention: of timm or of mmpretrain, with ``num_heads``; if it has ``q_norm`` and
            ``k_norm``, they are applied.
        qkv: what its projection gave, (B, P + N, 3 D); the results are views of it where there are
            no such norms.
    """
    q, k, _ = qkv.unflatten(-1, (3, attention.num_heads, -1)).unbind(2)  # (B, P + N, h, D / h)
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    return _normalized(attention, "q_norm", q), _normalized(attention, "k_norm", k)


def class_attention(model: nn.Module, layout: Layout, block: int | None = None) -> ClassAttention:
    """Find the attention of a block.

    Args:
        model: with blocks of a vision transformer of timm or of mmpretrain.
        layout: says how many tokens come before the patches.
        block: index among the blocks that have such attention, negative from the end; None is the
            last.

    Raises:
        ValueError: no such attention, no such block, or no class token.
    """
    found = list(_attentions(model))
    kind = type(model).__name__
    if not found:
        looked_for = " or ".join(f"{module}.{name}" for module, name in _KNOWN)
        raise ValueError(
            f"{kind} has no class attention: none of its modules is a {looked_for} with a qkv "
            f"projection."
        )
    if layout.prefix < 1 or not _has_class_token(model):
        raise ValueError(
            f"{kind} has no class token, so it has no class attention. If it has one, say so with "
            f"Stages(..., layout=Layout(prefix=1))."
        )
    index = -1 if block is None else block
    if not -len(found) <= index < len(found):
        raise ValueError(
            f"block needs to be in [{-len(found)}, {len(found) - 1}], since {kind} has "
            f"{len(found)} blocks with class attention, got {block}."
        )
    return ClassAttention(*found[index], layout.prefix)


def _attentions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    homes = [(sys.modules.get(module), name) for module, name in _KNOWN]
    known = [getattr(home, name) for home, name in homes if home is not None]
    for name, module in model.named_modules():
        for cls in known:
            plain = isinstance(module, cls) and type(module).forward is cls.forward
            # mmpretrain's qk_scale replaces the product by one with another scale
            scaled = isinstance(getattr(module, "scaled_dot_product_attention", None), partial)
            if plain and not scaled:
                yield name, module


def _has_class_token(model: nn.Module) -> bool:
    """False if a network says that it has none: timm's may have registers only."""
    return all(getattr(module, "has_class_token", True) for module in model.modules())


def _normalized(attention: nn.Module, norm: str, heads: Tensor) -> Tensor:
    normalize = getattr(attention, norm, None)
    return heads if normalize is None else normalize(heads)
