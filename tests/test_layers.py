"""The rule of dependence: a module imports from its own layer or from lower ones, never upward."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixplug

ROOT = Path(mixplug.__file__).parent
# From the ground up. A name stands for a module or a package below mixplug.
LAYERS = (
    ("optional", "renamed", "moved", "scanning", "docstrings", "signatures", "image_files"),
    ("sampling", "distributed", "names", "catalog", "numbers"),
    ("functional",),
    ("criterion", "layouts", "blocks"),
    ("mixed",),
    ("stages",),
    ("losses", "retrieval", "video", "data", "weights"),
    ("models", "metrics"),
    ("mixers", "viz"),
    ("evaluation",),
    ("hosts", "registry"),
    ("mm",),
    ("from_config", "autoload"),
    ("doctor", "overview"),
    ("bench", "demo"),
    ("cli",),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The face of the package resolves its public names when they are first used.
FACE = {"__init__"}
# Only these may name a host. The rest of the package works with torch alone.
HOSTS = {"timm", "mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module of a file with its line, also within functions and TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: a relative import"
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def layer(module: str) -> int | None:
    return RANKS.get(module.split(".")[0])


def test_every_module_has_a_layer() -> None:
    tops = {name.split(".")[0] for name, _ in modules()} - FACE
    assert tops <= RANKS.keys(), f"Give a layer to {sorted(tops - RANKS.keys())}."


def test_nothing_imports_upward() -> None:
    upward = []
    for name, path in modules():
        own = layer(name)
        for target, line in imports(path) if name not in FACE else ():
            package, _, imported = target.partition(".")
            rank = layer(imported) if package == "mixplug" else None
            if own is not None and rank is not None and rank > own:
                upward.append(f"{name}:{line} imports mixplug.{imported}")
    assert not upward, "\n".join(upward)


def test_rooms_of_one_layer_form_no_circle() -> None:
    """Packages that share a layer may use each other in one direction only."""
    edges: set[tuple[str, str]] = set()
    for name, path in modules():
        room = name.split(".")[0]
        for target, _ in imports(path) if name not in FACE else ():
            package, _, imported = target.partition(".")
            other = imported.split(".")[0]
            if package == "mixplug" and other in RANKS and other != room:
                edges.add((room, other))
    circles = sorted({tuple(sorted(edge)) for edge in edges if edge[::-1] in edges})
    assert not circles, circles


@pytest.mark.parametrize("package", sorted({n.split(".")[0] for n, _ in modules()} - FACE))
def test_modules_of_a_package_form_no_circle(package: str) -> None:
    """No two files of a package need each other, directly or through others."""
    graph: dict[str, set[str]] = {}
    known = {name for name, _ in modules()}
    for name, path in modules():
        if name.split(".")[0] == package:
            targets = {t.removeprefix("mixplug.") for t, _ in imports(path) if t[:8] == "mixplug."}
            graph[name] = {t for t in targets if t in known and t != name}
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in finished:
            for target in sorted(graph.get(name, ())):
                visit(target, (*above, name))
            finished.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_hosts_are_named_only_where_they_belong() -> None:
    """Below ``hosts`` nothing imports a host, but for the file that registers networks in timm."""
    free = ("hosts", "registry", "mm", "from_config", "doctor", "overview", "bench", "demo", "cli")
    named = [
        f"{name}:{line} imports {target}"
        for name, path in modules()
        if not name.startswith(free)
        for target, line in imports(path)
        if target.split(".")[0] in HOSTS and name != "models.small.timm_entrypoints"
    ]
    assert not named, "\n".join(named)
