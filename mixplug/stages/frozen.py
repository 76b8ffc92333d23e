"""Frozen helper networks of a mixer, which belong to no model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from mixplug.stages.isolation import generators_kept

Builder = Callable[[], nn.Module]


class FrozenNetworks(Mapping[str, nn.Module]):
    """Networks by name, in evaluation mode and without gradients of their parameters.

    They are not submodules of the model. So its state dict, optimizer, averages, copies and
    distributed wrappers do not know them, and ``model.train()`` does not reach them. Gradients with
    respect to their input flow as in any network. A network moves to the model's device when it is
    asked for.

    Args:
        model: whose device they follow.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._networks: dict[str, nn.Module] = {}
        self._devices: dict[str, torch.device] = {}

    def build(self, builders: Mapping[str, Builder], owner: str) -> None:
        """Build each network once.

        The draws of its initial weights change no generator of the host, on the CPU or on the
        model's device.

        Args:
            builders: name to a function that makes the network.
            owner: name of the mixer, for messages.

        Raises:
            ValueError: what a builder refuses, or one that makes something else.
        """
        for name, builder in builders.items():
            with generators_kept(next(self._model.parameters()).device):
                try:
                    network = builder()
                except ValueError as error:
                    raise ValueError(f"{owner}, frozen network {name!r}: {error}") from error
            if not isinstance(network, nn.Module):
                raise ValueError(
                    f"{owner}, frozen network {name!r}: the builder must return an nn.Module, got "
                    f"{type(network).__name__}."
                )
            self._networks[name] = network.eval().requires_grad_(False)
            self._devices.pop(name, None)

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self._networks:
            known = ", ".join(map(repr, self._networks)) or "none"
            raise KeyError(
                f"There is no frozen network {name!r}, there is {known}. A mixer declares them in "
                f"frozen(), and attach(stages) builds them."
            )
        device = next(self._model.parameters()).device
        if self._devices.get(name) != device:
            self._networks[name].to(device)
            self._devices[name] = device
        return self._networks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenNetworks:
        """Share the networks, which never change: a copy of a model needs no second ones."""
        other = FrozenNetworks(copy.deepcopy(self._model, memo))
        other._networks, other._devices = dict(self._networks), dict(self._devices)
        return other
