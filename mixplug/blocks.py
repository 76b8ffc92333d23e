"""Where a network's last block begins."""

from __future__ import annotations

from torch import nn


def before_last_block(model: nn.Module) -> str | None:
    """Name of the last block but one of a network made of alike blocks, or None.

    The default place of the map A that AlignMixup aligns. The matrix R of (3.10) is doubly
    stochastic, so alignment keeps the mean over positions: where only average pooling lies between
    A and e, mixing aligned maps *is* mixing embeddings. The thesis has a fully-connected encoder f
    in between (3.4.1); with the last block as f, A keeps the resolution of the last map, and what
    is aligned matters.

    A container of blocks is a Sequential or ModuleList of two or more modules of one class, each
    with two or more convolutions or linear layers. Of several the last counts, and within its last
    block again.
    """
    found, inside = None, ""
    while True:
        container = _last_container(model, inside)
        if container is None:
            return found
        names = [name for name, _ in model.get_submodule(container).named_children()]
        prefix = f"{container}." if container else ""
        found, inside = prefix + names[-2], prefix + names[-1]


def _last_container(model: nn.Module, inside: str) -> str | None:
    """The last container of blocks below ``inside`` that is in no other container of blocks."""
    last = None
    for name, module in model.get_submodule(inside).named_modules(prefix=inside):
        if _holds_blocks(module):
            nested = last is not None and (name.startswith(f"{last}.") or not last)
            last = last if nested else name
    return last


def _holds_blocks(module: nn.Module) -> bool:
    children = list(module.children())
    return (
        isinstance(module, (nn.Sequential, nn.ModuleList))
        and len(children) >= 2
        and len({type(child) for child in children}) == 1
        and all(_layers(child) >= 2 for child in children)
    )


def _layers(module: nn.Module) -> int:
    return sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in module.modules())
