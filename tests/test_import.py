"""Importing the package is cheap: not even torch; and its core needs nothing optional."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OPTIONAL = [
    "av", "faiss", "matplotlib", "mmcv", "mmengine", "mmpretrain", "pandas", "rich", "scipy",
    "sklearn", "timm", "torchvision", "typer",
]  # fmt: skip

CODE = """
import json, sys
def loaded():
    print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))
import mixplug
loaded()
mixplug.entries()
mixplug.build('AlignMixup', decoder='vae', image_shape=(3, 32, 32)).build_module(8)
mixplug.alignmix, mixplug.functional.align, mixplug.sampling.hull_weights(3, 4)
loaded()
print(json.dumps([name for name in mixplug.__all__ if not hasattr(mixplug, name)]))
print(json.dumps([name for name in mixplug.__all__ if name not in dir(mixplug)]))
print(json.dumps([name for name in mixplug.functional.__all__
                  if not hasattr(mixplug.functional, name)]))
"""


@pytest.fixture(scope="module")
def lines() -> list[list[str]]:
    """What a fresh interpreter prints: one takes seconds to load torch."""
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_import_loads_nothing_heavy(lines: list[list[str]]) -> None:
    assert "mixplug" in lines[0]
    assert not set(lines[0]) & {"torch", *OPTIONAL}


def test_using_the_core_loads_nothing_optional(lines: list[list[str]]) -> None:
    """The catalog's scan, a mixer with a decoder, and attributes found when asked for."""
    assert {"mixplug", "torch"} <= set(lines[1])
    assert not set(lines[1]) & set(OPTIONAL)


def test_everything_that_is_promised_is_there(lines: list[list[str]]) -> None:
    assert lines[2] == lines[3] == lines[4] == []
