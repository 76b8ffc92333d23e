"""``init_cfg=dict(type='mixplug.Pretrained', checkpoint=...)``: weights that do load, or an error.

mmengine's own 'Pretrained' loads what has the same name and shape and logs the rest: a backbone
that was saved under another name, or with another grid of positions, stays random.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit
from mmengine.model.weight_init import update_init_info
from torch import nn

from mixplug.registry import WEIGHT_INITIALIZERS
from mixplug.weights import load_file
from mixplug.weights.load import MIN_LOADED

_STOCK = ("Pretrained", "mmengine.Pretrained", PretrainedInit)


class _Type(str):
    """'mixplug.Pretrained' for the registry, and 'Pretrained' for hosts that ask for it.

    mmengine initializes by 'Pretrained' last, and networks of mmpretrain keep their own
    initialization from what it has loaded, by nothing but the name.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other in ("Pretrained", "mixplug.Pretrained")

    __hash__ = str.__hash__


_OURS = _Type("mixplug.Pretrained")


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """The backbone of a checkpoint of any host, read without running what is in it.

    Names are translated and positions resized, see :func:`mixplug.weights.load_file`; one line of
    the log says what was loaded, from which part, what was resized and what was left out. No
    initialization of mmengine or of a host runs over it afterwards, also where ``init_cfg`` is a
    list.

    Args:
        checkpoint: .pth or .safetensors.
        part: which of its networks, such as 'teacher'; None takes the first there is.
        min_loaded: share of the module's numbers below which it stops. From the default on, it
            also stops where anything would stay at random or lose its place, see
            :func:`mixplug.weights.refusal`.
        grid: (rows, columns) of the patches it was trained on, if they are no square.

    Raises:
        ValueError: when called, see :func:`mixplug.weights.load_file`.
    """

    def __init__(
        self,
        checkpoint: str,
        part: str | None = None,
        min_loaded: float = MIN_LOADED,
        grid: tuple[int, int] | None = None,
    ) -> None:
        self.checkpoint, self.part, self.min_loaded = checkpoint, part, min_loaded
        self.grid = None if grid is None else (int(grid[0]), int(grid[1]))

    def __call__(self, module: Any) -> None:
        """Load into ``module``, all or nothing."""
        report = load_file(module, self.checkpoint, self.part, self.min_loaded, self.grid)
        MMLogger.get_current_instance().info("%s: %s", type(module).__name__, report.line())
        for child in module.modules():
            child.is_init = True  # mmengine goes on to initialize children which are not
        module.is_init = False  # nor warns of a second time, when it comes back to this one
        keys = ("checkpoint", "part", "min_loaded", "grid")
        module.init_cfg = {"type": _OURS} | {key: getattr(self, key) for key in keys}
        module._mixplug_loaded = _sums(module)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, f"Loaded from {self.checkpoint} by mixplug.Pretrained")


def instead_of_stock(init_cfg: Any, owner: str) -> Any:
    """A copy of an ``init_cfg`` in which 'Pretrained' is ours, for backbones of mixplug.

    A checkpoint of timm has no name that the module around timm's model has, so mmengine's would
    load nothing of it, and go on.

    Raises:
        ValueError: what ours does not take: no file, or the prefix of something else than a
            backbone.
    """
    if isinstance(init_cfg, list | tuple):
        return [instead_of_stock(one, owner) for one in init_cfg]
    found = copy.deepcopy(init_cfg)
    if not isinstance(found, dict) or _is_ours(found) or found.get("type") not in _STOCK:
        return found
    checkpoint, prefix = str(found.get("checkpoint")), found.get("prefix")
    if "://" in checkpoint or (prefix or "backbone").rstrip(".") != "backbone":
        said = f"prefix={prefix!r}" if "://" not in checkpoint else f"checkpoint={checkpoint!r}"
        raise ValueError(
            f"mmengine's Pretrained loads only what has the names of {owner}, and goes on without "
            f"the rest; {said} needs to be init_cfg=dict(type='mixplug.Pretrained', "
            f"checkpoint=FILE, part=...), with a file that is there and a part of it."
        )
    return {"type": "mixplug.Pretrained", "checkpoint": checkpoint}


_NEVER = object()


def _is_ours(init_cfg: Any) -> bool:
    return isinstance(init_cfg, dict) and init_cfg.get("type") in ("mixplug.Pretrained", Pretrained)


def _ours_of(module: Any) -> list[Any]:
    init_cfg = getattr(module, "init_cfg", None)
    each = init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]
    return [one for one in each if _is_ours(one)]


def _marked(init_cfg: Any) -> Any:
    """An ``init_cfg`` with ours under a type that mmengine keeps for the end."""
    if isinstance(init_cfg, list | tuple):
        return [_marked(one) for one in init_cfg]
    return {**init_cfg, "type": _OURS} if _is_ours(init_cfg) else init_cfg


@torch.no_grad()
def _sums(module: nn.Module) -> torch.Tensor:
    """Two numbers per tensor, which change when it is drawn anew; on the CPU."""
    values = [value.detach().double() for value in module.state_dict().values()]
    return torch.stack([torch.stack([v.sum(), v.square().sum()]).cpu() for v in values])


def _keep(root: nn.Module) -> None:
    """Load again what a host has initialized over what was loaded, or has never asked us for.

    Raises:
        ValueError: see :func:`mixplug.weights.load_file`.
    """
    for module in list(root.modules()):
        ours = _ours_of(module)
        if not ours:
            continue
        sums = getattr(module, "_mixplug_loaded", _NEVER)
        if sums is _NEVER or (sums is not None and not torch.equal(_sums(module), sums)):
            Pretrained(**{key: value for key, value in ours[-1].items() if key != "type"})(module)
        module._mixplug_loaded = None  # training may change it from here on


def load_last() -> None:
    """Have mmengine's ``init_weights`` load by ours after all else; again it changes nothing."""
    if hasattr(BaseModule, "_mixplug"):
        return
    init_weights = BaseModule.init_weights

    @functools.wraps(init_weights)
    def init_weights_and_keep(self: Any) -> None:
        whole = not hasattr(self, "_params_init_info") and not self.is_init
        if self.init_cfg:
            self.init_cfg = _marked(self.init_cfg)
        init_weights(self)
        if whole:
            _keep(self)

    BaseModule._mixplug = True
    BaseModule.init_weights = init_weights_and_keep


load_last()
