"""Refuse a detector whose heads assume other strides than its maps have.

Anchors and RoIAlign take the strides of maps from the config, and nothing in mmdet compares them
with the maps. A ViT with patches of 14 pixels has strides of 3.5, 7, 14 and 28 after
mixplug.ViTPyramid, where most configs say 4, 8, 16 and 32: such a detector would train on features
of other places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

_OWN = "mixplug."  # modules of this package are watched
_ROUNDING = 1.0  # cells by which a map may be larger or smaller than its stride says


def check_strides(
    maps: Sequence[Tensor], size: tuple[int, int], assumed: Mapping[str, Sequence[float]]
) -> None:
    """Compare the sizes of maps with the strides that the heads of a detector assume.

    Args:
        maps: (B, C, h, w) each, in the order of the strides.
        size: (H, W) of the images.
        assumed: strides by the name of the module that has them.

    Raises:
        ValueError: a map has a size that differs by more than one cell.
    """
    wrong = {
        name: strides
        for name, strides in assumed.items()
        if any(
            abs(side / stride - cells) > _ROUNDING
            for stride, found in zip(strides, maps, strict=False)
            for side, cells in zip(size, found.shape[-2:], strict=True)
        )
    }
    if not wrong:
        return
    actual = _actual(maps, size)
    shapes = ", ".join(f"{found.shape[-2]} x {found.shape[-1]}" for found in maps)
    wanted = "; ".join(f"{name}={actual[: len(wrong[name])]}" for name in wrong)
    given = "; ".join(f"{name}={[*map(_plain, strides)]}" for name, strides in wrong.items())
    raise ValueError(
        f"Images of {size[0]} x {size[1]} pixels give maps of {shapes}, whose strides are "
        f"{actual}, but the config says {given}. Anchors and RoIs would read other places of the "
        f"maps. Set {wanted} (the strides of a prior_generator are those of the config's "
        f"anchor_generator, or of the head), or take a backbone with patches of 16 pixels."
    )


def strides_in(model: nn.Module) -> dict[str, list[float]]:
    """The strides that RoI extractors and generators of anchors and points assume, by name."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(getattr(module, "featmap_strides", None), list | tuple):
            found[f"{name}.featmap_strides"] = _numbers(module.featmap_strides)
        strides = getattr(getattr(module, "prior_generator", None), "strides", None)
        if isinstance(strides, list | tuple):
            found[f"{name}.prior_generator.strides"] = _numbers(strides)
    return {name: strides for name, strides in found.items() if strides}


def _actual(maps: Sequence[Tensor], size: tuple[int, int]) -> list[float]:
    """Strides of maps: that of the largest one, whose rounding matters least, and its multiples."""
    largest = max(maps, key=lambda one: one.shape[-1])
    first = size[1] / largest.shape[-1]
    ratios = (round(largest.shape[-1] / one.shape[-1] * 4) / 4 for one in maps)
    return [_plain(round(first * ratio, 3)) for ratio in ratios]


def _numbers(strides: Sequence[Any]) -> list[float]:
    each = [one[0] if isinstance(one, list | tuple) else one for one in strides]
    return [float(one) for one in each if isinstance(one, int | float) and one > 0]


def _plain(stride: float) -> float:
    return int(stride) if stride == int(stride) else stride


def _watch(parent: nn.Module, name: str, child: Any) -> None:
    """Check a model of mm at its first forward pass, if one of its parts is from mixplug."""
    new = isinstance(parent, BaseModel) and _check_first not in parent._forward_pre_hooks.values()
    if new and isinstance(child, nn.Module) and any(_ours(child)):
        parent.register_forward_pre_hook(_check_first, with_kwargs=True)


def _ours(module: nn.Module) -> Iterator[bool]:
    return (type(part).__module__.startswith(_OWN) for part in module.modules())


def _check_first(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check the maps of this forward pass, and only of this one."""
    for key in [key for key, one in model._forward_pre_hooks.items() if one is _check_first]:
        del model._forward_pre_hooks[key]
        model._forward_pre_hooks_with_kwargs.pop(key, None)
    images = args[0] if args else kwargs.get("inputs")
    last = getattr(model, "neck", None)
    last = getattr(model, "backbone", None) if last is None else last
    assumed = strides_in(model)
    if not (assumed and isinstance(images, Tensor) and isinstance(last, nn.Module)):
        return
    size = (int(images.shape[-2]), int(images.shape[-1]))

    def check(module: nn.Module, args: Any, maps: Any) -> None:
        handle.remove()
        if isinstance(maps, list | tuple) and all(isinstance(m, Tensor) for m in maps):
            try:
                check_strides(maps, size, assumed)
            except ValueError:  # the next forward pass fails as well
                model.register_forward_pre_hook(_check_first, with_kwargs=True)
                raise

    handle = last.register_forward_hook(check)


register_module_module_registration_hook(_watch)
