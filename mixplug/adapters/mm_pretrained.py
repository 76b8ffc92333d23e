"""``init_cfg=dict(type='mixplug.Pretrained', checkpoint=...)``: weights that do load, or an error.

mmengine's own 'Pretrained' loads what has the same name and shape and logs the rest: a backbone
that was saved under another name, or with another grid of positions, stays random.
"""

from __future__ import annotations

from typing import Any

from mmengine.logging import MMLogger
from mmengine.model.weight_init import update_init_info
from torch import nn

from mixplug.registry import WEIGHT_INITIALIZERS
from mixplug.weights import load_file
from mixplug.weights.load import MIN_LOADED


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """The backbone of a checkpoint of any host, read without running what is in it.

    Names are translated and positions resized, see :func:`mixplug.weights.load_file`; one line of
    the log says what was loaded, from which part, what was resized and what was left out. No
    initialisation of mmengine runs over it afterwards.

    Args:
        checkpoint: .pth or .safetensors.
        part: which of its networks, such as 'teacher'; None takes the first there is.
        min_loaded: share of the module's numbers below which it stops.
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

    def __call__(self, module: nn.Module) -> None:
        """Load into ``module``, all or nothing."""
        report = load_file(module, self.checkpoint, self.part, self.min_loaded, self.grid)
        MMLogger.get_current_instance().info("%s: %s", type(module).__name__, report.line())
        for child in module.modules():
            mark: Any = child
            mark.is_init = True  # mmengine goes on to initialise children which are not
        module.is_init = False  # nor warns of a second time, when it comes back to this one
        if hasattr(module, "_params_init_info"):
            update_init_info(module, f"Loaded from {self.checkpoint} by mixplug.Pretrained")
