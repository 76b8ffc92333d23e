"""Store less for the backward pass: outputs that are cheap to compute are computed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Link = tuple[nn.Module, nn.Module]


@contextmanager
def recomputed(pairs: Iterable[Link]) -> Iterator[None]:
    """Let linear layers store the input of the layer before them instead of its output.

    A linear layer stores its input for the backward pass. A norm or an activation before it stores
    its own input too, so two tensors are held. While this context is open only the latter is held,
    and the first layer runs again in the backward pass. Values and gradients do not change.

    Args:
        pairs: a deterministic layer that does not work in place, and the linear layer that takes
            its output. If the linear layer gets another input, nothing changes.
    """
    with ExitStack() as stack:
        for producer, consumer in pairs:
            if getattr(producer, "inplace", False) or producer._forward_hooks:
                continue  # hooks may change its output
            link = _Passed(producer)
            for handle in (
                producer.register_forward_hook(link.made),
                consumer.register_forward_pre_hook(link.taken),
                consumer.register_forward_hook(link.done, always_call=True),
            ):
                stack.callback(handle.remove)
            stack.callback(link.done)  # torch calls no hooks after Ctrl-C
        yield


class _Passed:
    """The tensors that pass from one layer to the other."""

    def __init__(self, producer: nn.Module) -> None:
        self._producer = producer
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._hooks: Any = None

    def made(self, producer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        device = output.device.type
        self._precision = (torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        if self._precision[1] and output.dtype == torch.float32:
            # cast as the linear layer would, whose own copy could not be recognized
            output = output.to(self._precision[0])
        self._input, self._output = inputs[0], output
        return output

    def taken(self, consumer: nn.Module, inputs: tuple[Tensor]) -> None:
        if inputs[0] is self._output and torch.is_grad_enabled():
            self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, self._again)
            self._hooks.__enter__()

    def done(self, *_: Any) -> None:
        if self._hooks is not None:
            self._hooks.__exit__()
        self._input = self._output = self._hooks = None

    def _keep(self, saved: Tensor) -> Any:
        x, output = self._input, self._output
        assert output is not None
        same = saved.data_ptr() == output.data_ptr() and saved.numel() == output.numel()
        return (x, saved.shape, saved.dtype, self._precision) if same else saved  # e.g. a weight

    def _again(self, kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        x, shape, dtype, (reduced, enabled) = kept
        with torch.no_grad(), torch.autocast(x.device.type, reduced, enabled):
            return self._producer.forward(x).to(dtype).view(shape)
