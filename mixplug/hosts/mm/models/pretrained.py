"""``init_cfg=dict(type='mixplug.Pretrained', checkpoint=...)``: weights that load, or an error.

mmengine's own 'Pretrained' loads tensors of the same name and shape and logs the others. A backbone
that was saved under other names, or with another grid of position embeddings, stays random.
"""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit
from mmengine.model.weight_init import update_init_info
from torch import nn

from mixplug.registry import WEIGHT_INITIALIZERS
from mixplug.weights import load_file
from mixplug.weights.load import MIN_LOADED
from mixplug.weights.preprocessing import NORMALIZATION, preprocessing_of

_STOCK = ("Pretrained", "mmengine.Pretrained", PretrainedInit)


class _Type(str):
    """'mixplug.Pretrained' for the registry, equal to 'Pretrained' for code that asks for it.

    mmengine runs the initializer of the name 'Pretrained' last, and networks of mmpretrain do not
    initialize again what an initializer of this name has loaded.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other in ("Pretrained", "mixplug.Pretrained")

    __hash__ = str.__hash__


_OURS = _Type("mixplug.Pretrained")


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Loads the backbone of a checkpoint of any framework, without running code in the file.

    Names are translated and position embeddings resized, see :func:`mixplug.weights.load_file`. One
    line of the log says what was loaded, from which part, what was resized and what was left out.
    No initialization of mmengine or of another package runs over it afterwards, also if
    ``init_cfg`` is a list.

    Args:
        checkpoint: a file .pth or .safetensors.
        part: which of its networks, such as 'teacher'; None takes the first of
            :data:`mixplug.weights.parts.PARTS` that it has.
        min_loaded: the least share of the module's numbers that must be loaded. From the default
            on, it is also an error if a tensor would stay random or lose its place, see
            :func:`mixplug.weights.refusal`.
        grid: (rows, columns) of the patches in training, if they form no square.

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
            child.is_init = True  # or mmengine initializes the children
        module.is_init = False  # or mmengine warns that this module is initialized twice
        keys = ("checkpoint", "part", "min_loaded", "grid")
        module.init_cfg = {"type": _OURS} | {key: getattr(self, key) for key in keys}
        module._mixplug_loaded = _sums(module)
        if hasattr(module, "_params_init_info"):
            update_init_info(module, f"Loaded from {self.checkpoint} by mixplug.Pretrained")


def with_own_pretrained(init_cfg: Any, owner: str) -> Any:
    """A copy of an ``init_cfg`` with 'mixplug.Pretrained' in place of 'Pretrained'.

    For backbones that wrap a model of timm: names in a checkpoint of timm lack the prefix of the
    wrapper, so mmengine's 'Pretrained' would load nothing and raise no error.

    Args:
        init_cfg: mmengine's, a dictionary, a list of them, or None.
        owner: name of the backbone, for the message.

    Raises:
        ValueError: the checkpoint is not a file, or ``prefix`` is not that of a backbone.
    """
    if isinstance(init_cfg, list | tuple):
        return [with_own_pretrained(one, owner) for one in init_cfg]
    found = copy.deepcopy(init_cfg)
    if not isinstance(found, dict) or _is_ours(found) or found.get("type") not in _STOCK:
        return found
    checkpoint, prefix = str(found.get("checkpoint")), found.get("prefix")
    if "://" in checkpoint or (prefix or "backbone").rstrip(".") != "backbone":
        given = f"prefix={prefix!r}" if "://" not in checkpoint else f"checkpoint={checkpoint!r}"
        raise ValueError(
            f"mmengine's Pretrained loads only tensors with the names of {owner} and ignores the "
            f"others, got {given}: use init_cfg=dict(type='mixplug.Pretrained', checkpoint=FILE, "
            f"part=...) with a local file."
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
    """An ``init_cfg`` whose 'mixplug.Pretrained' has a type that mmengine runs last."""
    if isinstance(init_cfg, list | tuple):
        return [_marked(one) for one in init_cfg]
    return {**init_cfg, "type": _OURS} if _is_ours(init_cfg) else init_cfg


@torch.no_grad()
def _sums(module: nn.Module) -> torch.Tensor:
    """Two numbers per tensor, on the CPU, which change if the tensor is initialized again."""
    values = [value.detach().double() for value in module.state_dict().values()]
    return torch.stack([torch.stack([v.sum(), v.square().sum()]).cpu() for v in values])


def _load_again(root: nn.Module) -> None:
    """Load modules that were initialized again after loading, or whose loader was never called.

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
        module._mixplug_loaded = None  # from here on training changes the weights


def compare_images(root: nn.Module) -> None:
    """Warn if a model normalizes images in another way than a checkpoint that it has loaded says.

    Args:
        root: a whole model, whose ``data_preprocessor`` or ``tracker`` normalizes.
    """
    for owner in ("data_preprocessor", "tracker"):
        mean, std = (getattr(getattr(root, owner, None), key, None) for key in ("mean", "std"))
        if not isinstance(mean, torch.Tensor) or not isinstance(std, torch.Tensor):
            continue
        colors = [value.detach().flatten().tolist() for value in (mean, std)]
        hosts = [*root.modules(), *getattr(root, "_hosts", ())]
        loaded = {(one["checkpoint"], one.get("part")) for m in hosts for one in _ours_of(m)}
        for checkpoint, part in sorted(loaded, key=str):
            told = preprocessing_of(checkpoint, part)
            different = told.contradicted(*colors)
            if different:
                warnings.warn(
                    f"{checkpoint}: {different}. Set mean and std of the {owner}.",
                    UserWarning,
                    stacklevel=4,
                )
            else:
                MMLogger.get_current_instance().info("%s: %s", checkpoint, told.line(NORMALIZATION))


def load_last() -> None:
    """Make mmengine's ``init_weights`` load by 'mixplug.Pretrained' last; safe to call twice."""
    if hasattr(BaseModule, "_mixplug"):
        return
    init_weights = BaseModule.init_weights

    @functools.wraps(init_weights)
    def init_weights_and_load(self: Any) -> None:
        whole = not hasattr(self, "_params_init_info") and not self.is_init
        if self.init_cfg:
            self.init_cfg = _marked(self.init_cfg)
        init_weights(self)
        if whole:
            _load_again(self)
            compare_images(self)

    BaseModule._mixplug = True
    BaseModule.init_weights = init_weights_and_load


load_last()
