"""Find the last block of a network."""

from __future__ import annotations

from torch import nn


def before_last_block(model: nn.Module) -> str | None:
    """Name of the second to last block of a network that repeats one kind of block, or None.

    Its output is the default map A of AlignMixup. Alignment keeps the mean over positions, because
    the matrix R that aligns is doubly stochastic (eq. 3.10). If only average pooling lay between A
    and the embedding e, mixing aligned maps would be the same as mixing embeddings. The thesis has
    a fully-connected encoder f between the two (section 3.4.1). Here the last block takes the place
    of f: A then has the resolution of the last map, and alignment makes a difference.

    A container of blocks is a Sequential or ModuleList of two or more modules of one class, each
    with two or more convolutions or linear layers. The last container is used, then the last
    container within its last block, and so on.
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
    """The last container of blocks below ``inside`` that lies in no other container of blocks."""
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
