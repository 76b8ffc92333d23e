"""Old module paths: importable with a warning, the same objects, and pickles that name them."""

import importlib
import pickle
import subprocess
import sys
import warnings

import pytest
from torch import nn

import mixplug
from mixplug import moved
from mixplug.hosts.retype import retype


@pytest.mark.parametrize("old", [path for path, new in moved.NEW_PATHS.items() if new])
def test_an_old_path_warns_and_has_what_the_new_one_has(old: str) -> None:
    sys.modules.pop(f"mixplug.{old}", None)
    new = [importlib.import_module(f"mixplug.{path}") for path in moved.NEW_PATHS[old]]
    with pytest.warns(DeprecationWarning, match=rf"mixplug\.{old} has moved to {new[0].__name__}"):
        module = importlib.import_module(f"mixplug.{old}")
    for part in new:
        for name, value in vars(part).items():
            own = getattr(value, "__module__", None) == part.__name__
            if own and not name.startswith("__"):
                assert getattr(module, name) is value


@pytest.mark.parametrize("path", ["functional.nearest", "models.class_tokens"])
def test_an_old_path_does_not_hide_the_function_of_its_name(path: str) -> None:
    package, _, name = path.rpartition(".")
    function = getattr(importlib.import_module(f"mixplug.{package}"), name)
    sys.modules.pop(f"mixplug.{path}", None)
    with pytest.warns(DeprecationWarning):
        importlib.import_module(f"mixplug.{path}")
    assert getattr(importlib.import_module(f"mixplug.{package}"), name) is function


def test_from_import_of_a_split_module_finds_both_halves() -> None:
    from mixplug.adapters.mm_tracker import FrozenTracker, GOT10kMetric

    from mixplug.hosts.mm.evaluation.got10k import GOT10kMetric as metric
    from mixplug.hosts.mm.models.frozen_tracker import FrozenTracker as tracker

    assert (FrozenTracker, GOT10kMetric) == (tracker, metric)


def test_an_unknown_old_name_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"adapters\.nothing"):
        importlib.import_module("mixplug.adapters.nothing")
    with pytest.raises(ImportError, match="no_such_thing"):
        from mixplug.adapters.clock import no_such_thing  # noqa: F401


class Doubled:
    """Methods that a retyped module gets."""

    def forward(self, x: float) -> float:
        return 2 * x


def test_a_pickle_that_names_the_old_path_loads() -> None:
    layer = nn.Identity()
    retype(layer, Doubled)
    raw = pickle.dumps(layer, protocol=0)
    assert b"mixplug.hosts.retype" in raw
    old = raw.replace(b"mixplug.hosts.retype", b"mixplug.adapters.retype")
    found = pickle.loads(old)
    assert isinstance(found, nn.Identity) and found(3.0) == 6.0


def test_importing_mixplug_warns_of_nothing() -> None:
    code = "import warnings; warnings.simplefilter('error', DeprecationWarning); import mixplug"
    subprocess.run([sys.executable, "-c", code], check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved.install()
    assert mixplug.__version__
