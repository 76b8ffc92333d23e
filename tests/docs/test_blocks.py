"""Every code block of README and of the site is run, built or parsed."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks, commands, file_name, is_config, of, pages, tomllib, try_command
from doc_config import try_config
from doc_setups import SETUPS, Setup

LANGUAGES = {"python", "console", "toml", "text", "yaml", "json"}
COLUMNS = 90
NOT_RUN = 6  # blocks that say why they cannot be; a higher number wants a good reason


@pytest.mark.parametrize("path", pages())
def test_languages_are_named(path: str) -> None:
    odd = [f"{b.place} {b.language!r}" for b in blocks(path) if b.language not in LANGUAGES]
    assert not odd, f"name one of {LANGUAGES}: {odd}"


@pytest.mark.parametrize("path", [path for path in pages() if path.startswith("docs/")])
def test_code_fits_the_page(path: str) -> None:
    """A wider line has to be scrolled to, also on a large screen."""
    lines = [(b.place, line) for b in blocks(path) for line in b.code.splitlines()]
    wide = [(place, line) for place, line in lines if len(line) > COLUMNS]
    assert not wide, wide


def test_few_blocks_are_not_run() -> None:
    marked = [block for path in pages() for block in blocks(path) if block.reason]
    assert len(marked) <= NOT_RUN, [block.place for block in marked]


DEEP = re.compile(r"mixplug\.\w+\.\w+(?:\.\w+)*")


def deeper(name: str) -> bool:
    """Whether a dotted name goes through a module below ``mixplug.X``."""
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(".".join(name.split(".")[:3])) is not None
    return False


@pytest.mark.parametrize("path", pages())
def test_examples_import_from_one_level(path: str) -> None:
    """As ``mixplug.mixers.PairMixer``: the rooms below may change."""
    found = [f"{path}: {name}" for name in DEEP.findall(prose(path)) if deeper(name)]
    for block in of(path, "python"):
        for node in ast.walk(ast.parse(block.code)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            names += DEEP.findall(ast.unparse(node)) if isinstance(node, ast.Attribute) else []
            found += [f"{block.place}: {name}" for name in names if deep_name(name)]
    assert not found, found


def deep_name(name: str) -> bool:
    return bool(DEEP.match(name)) and deeper(name)


def prose(path: str) -> str:
    """The inline code of a page, outside of blocks of code and of directives for Sphinx."""
    text = re.sub(r"(?ms)^```.*?^```$", "", (ROOT / path).read_text())
    return "\n".join(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("mixplug.mixers.PairMixer", False), ("mixplug.mixers.pairwise.PairMixer", True),
        ("mixplug.hosts.timm.timm_stages", True), ("mixplug.functional.mix", False),
        ("mixplug.models.small.timm_entrypoints", True), ("mixplug.mixers.pairwise", True),
        ("mixplug.numbers.SOURCES", False), ("mixplug.sampling.generators", False),
        ("mixplug.stages", False), ("mixplug.Stages.probe", False),
    ],
)  # fmt: skip
def test_deep_names(name: str, refused: bool) -> None:
    assert deep_name(name) == refused


def with_language(language: str) -> list[str]:
    return [path for path in pages() if of(path, language)]


@pytest.mark.parametrize("path", with_language("python"))
def test_python_runs(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in their order, in one namespace, in an empty folder.

    One that starts with the name of a file is that file, which later ones may import.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    setup = SETUPS.get(path, Setup())
    with setup.context(monkeypatch) as names:
        smaller = dict(setup.smaller)
        for block in of(path, "python"):
            if block.reason:
                continue
            code = block.code
            for word in [word for word in smaller if word in code]:
                code = code.replace(word, smaller.pop(word))
            Path(file_name(block)).write_text(code)
            if is_config(block):
                try_config(Path(file_name(block)), block.place)
                continue
            if block.code.startswith(f"# {file_name(block)}"):
                names |= run_file(Path(file_name(block)), monkeypatch)
            else:
                exec(compile("\n" * block.line + code, path, "exec", dont_inherit=True), names)
        assert not smaller, f"{path} has no longer: {[*smaller]}"
        setup.after(names)


def run_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Import a block that has a file name, which so must stand alone; call its tests."""
    monkeypatch.setitem(sys.modules, path.stem, None)  # forgotten afterwards
    del sys.modules[path.stem]
    importlib.invalidate_caches()
    names = vars(importlib.import_module(path.stem))
    if path.stem.startswith("test_"):
        tests = [names[name] for name in names if name.startswith("test_")]
        assert tests, f"{path} tests nothing"
        for test in tests:
            test()
    return {name: value for name, value in names.items() if not name.startswith("__")}


@pytest.mark.parametrize("path", with_language("console"))
def test_commands_are_understood(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {file_name(block) for block in of(path, "python")}
    for block in of(path, "console"):
        assert commands(block), f"{block.place}: commands start with '$ '"
        for words in commands(block):
            try:
                try_command(words, files)
            except BaseException as error:
                raise AssertionError(f"{block.place}: {' '.join(words)}: {error}") from error


@pytest.mark.parametrize("path", with_language("toml"))
def test_toml_parses(path: str) -> None:
    for block in of(path, "toml"):
        tomllib.loads(block.code)
