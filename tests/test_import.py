"""Importing the package is cheap, its core needs nothing optional, and its public names exist."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mixplug

ROOT = Path(mixplug.__file__).parents[1]
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
for name in mixplug.__all__:
    getattr(mixplug, name)
mixplug.models.Views, mixplug.viz.draw_tracks, mixplug.evaluation.make_card, dir(mixplug)
loaded()
"""


def fresh(code: str) -> str:
    """What a process of its own prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def lines() -> list[list[str]]:
    """What a fresh interpreter prints: one takes seconds to load torch."""
    return [json.loads(line) for line in fresh(CODE).splitlines()]


def test_import_loads_nothing_heavy(lines: list[list[str]]) -> None:
    assert "mixplug" in lines[0]
    assert not set(lines[0]) & {"torch", *OPTIONAL}


def test_using_the_core_loads_nothing_optional(lines: list[list[str]]) -> None:
    """The catalog's scan, a mixer with a decoder, and attributes found when asked for."""
    assert {"mixplug", "torch"} <= set(lines[1])
    assert not set(lines[1]) & set(OPTIONAL)


def test_importing_all_public_packages_loads_nothing_optional(lines: list[list[str]]) -> None:
    assert not set(lines[2]) & set(OPTIONAL)


@pytest.mark.parametrize(
    "expression",
    [
        "mixplug.criterion.per_class", "mixplug.losses.param_groups", "mixplug.metrix",
        "mixplug.mixers.PairMixer", "mixplug.mixers.AlignMixup", "mixplug.data.VideoClips",
        "mixplug.models.Views", "mixplug.retrieval.search", "mixplug.evaluation.make_card",
        "mixplug.RecallAtK", "mixplug.hosts.timm_stages", "mixplug.weights.read",
    ],
)  # fmt: skip
def test_names_work_after_a_bare_import(expression: str) -> None:
    """Whatever else has been loaded before: a process for each."""
    assert fresh(f"import mixplug; print(callable({expression}))") == "True\n"


def packages() -> list[str]:
    """All packages of mixplug but the commands, the demos and the benchmarks."""
    found = [
        module.name
        for module in pkgutil.walk_packages(mixplug.__path__, "mixplug.")
        if module.ispkg and not module.name.startswith(("mixplug.cli", "mixplug.demo"))
    ]
    return [
        "mixplug",
        *(name for name in found if name not in ("mixplug.bench", "mixplug.hosts.mm")),
    ]


@pytest.mark.parametrize("package", packages())
def test_every_public_name_exists(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ and len(module.__all__) == len({*module.__all__})
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert {*module.__all__} <= {*dir(module)}
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing_such'"):
        _ = module.nothing_such


def test_dir_shows_modules_the_contract_and_the_catalog() -> None:
    named = {name for entry in mixplug.entries() for name in (entry.name, entry.alias)}
    assert {"criterion", "losses", "Mixer", "build", "alignmix"} <= {*dir(mixplug)}
    assert named <= {*dir(mixplug)}
    private = {name for name in dir(mixplug) if name.startswith("_") and name[:2] != "__"}
    assert not private


def test_a_new_mixer_needs_no_line_in_the_package(tmp_path: Path) -> None:
    """A file that is added to the folder is in the catalog and in ``mixplug.mixers``."""
    (tmp_path / "newest.py").write_text(
        "from dataclasses import dataclass\n"
        "from mixplug.catalog import register\n"
        "from mixplug.mixers.base import Mixer\n"
        "@register('NewestMix', reference='a test')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class NewestMix(Mixer):\n    strength: int = 1\n"
    )
    code = (
        "import sys, pkgutil, mixplug\n"
        "walk = pkgutil.iter_modules\n"
        f"extra = {str(tmp_path)!r}\n"
        "def iter_modules(path=None, prefix=''):\n"
        "    if prefix == 'mixplug.mixers.':\n"
        "        sys.modules['mixplug.mixers'].__path__ = [*path, extra]\n"
        "        path = sys.modules['mixplug.mixers'].__path__\n"
        "    return walk(path, prefix)\n"
        "pkgutil.iter_modules = iter_modules\n"
        "assert 'NewestMix' in mixplug.mixers.__all__\n"
        "print(mixplug.build('newestmix') == mixplug.mixers.NewestMix())"
    )
    assert fresh(code) == "True\n"


def examples() -> list[tuple[str, str]]:
    """Code blocks of the documentation, and the literal blocks of docstrings."""
    found = []
    for path in (ROOT / "README.md", ROOT / "timm_hooks/README.md", ROOT / "mm_configs/README.md"):
        if path.exists():
            blocks = re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.S)
            found += [(path.name, block) for block in blocks]
    for path in sorted((ROOT / "mixplug").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found.append((str(path), ast.get_docstring(node) or ""))
    return found


def test_examples_import_from_one_level_at_most() -> None:
    """``from mixplug.mixers import PairMixer``, never from a module within."""
    deeper = [
        f"{path}: {line.strip()}"
        for path, text in examples()
        for line in text.splitlines()
        if re.match(r"\s*(from mixplug\.\w+\.\w+|import mixplug\.\w+\.\w+)", line)
    ]
    assert not deeper, "\n".join(deeper)


def test_the_thesis_is_named() -> None:
    said = " ".join(mixplug.__doc__.split())
    assert "Shashanka Venkataramanan" in said and "Université de Rennes, 2024" in said
    assert '"Metric learning for instance and category-level visual representation"' in said
    assert "http://irisa.fr/en/node/1421" in said
