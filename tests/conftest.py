import sys
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def _remembered() -> dict[type, set[str]]:
    """Names of the instances that mmengine keeps: scopes, loggers, message hubs, visualizers."""
    manager = sys.modules.get("mmengine.utils.manager")
    kinds = [manager.ManagerMixin] if manager else []
    for kind in kinds:  # grows while it is read
        kinds.extend(kind.__subclasses__())
    return {kind: set(kind._instance_dict) for kind in kinds}


def _forgotten() -> Iterator[None]:
    before = _remembered()
    yield
    for kind, names in _remembered().items():
        for name in names - before.get(kind, set()):
            instance = kind._instance_dict.pop(name)
            for handler in getattr(instance, "handlers", ()):
                handler.close()


# Twice, since a fixture of a module outlives a test: what it leaves goes with the module.
forgets_the_test = pytest.fixture(autouse=True)(_forgotten)
forgets_the_module = pytest.fixture(autouse=True, scope="module")(_forgotten)
