"""The fenced code blocks of README and of the site, and how each kind of them is tried."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
BUILT = ("_build", "names")  # made by Sphinx, not written
_OPEN = re.compile(r"^\s*(`{3,}|:{3,}|~{3,})\s*(\{[\w-]+\})?\s*([\w-]*).*$")
_MARK = re.compile(r"^\s*<!-- not run: (.+?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its code, and why it is not run, if so."""

    path: str
    line: int
    language: str
    code: str
    reason: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


def pages() -> list[str]:
    """README files and every page of the site that somebody wrote."""
    written = [p for p in (ROOT / "docs").rglob("*.md") if not {*p.parts} & {*BUILT}]
    named = [ROOT / "README.md", ROOT / "timm_hooks/README.md", ROOT / "CONTRIBUTING.md"]
    return sorted(str(p.relative_to(ROOT)) for p in [*named, *written] if p.is_file())


@functools.cache
def blocks(path: str) -> tuple[Block, ...]:
    """Blocks of a page in their order; those inside of notes and tabs, too."""
    found, lines, at, mark = [], (ROOT / path).read_text().splitlines(), 0, ""
    notes: list[str] = []  # fences of notes, tabs and tables of contents that are open
    while at < len(lines):
        line, opened = lines[at], _OPEN.match(lines[at])
        at += 1
        if notes and line.strip() == notes[-1]:
            notes.pop()
        elif opened and opened[2] and opened[2] != "{code-block}":
            notes.append(opened[1])
        elif opened:
            start = at
            while lines[at].strip() != opened[1]:
                at += 1
            code = [line for line in lines[start:at] if not re.match(r"^:\w+:", line)]
            found.append(Block(path, start, opened[3], "\n".join(code) + "\n", mark))
            at += 1
        mark = marked[1] if (marked := _MARK.match(line)) else mark if not line.strip() else ""
    return tuple(found)


def one(path: str, language: str, having: str) -> Block:
    """The only block of a page with these words."""
    found = [block for block in of(path, language) if having in block.code]
    assert len(found) == 1, f"{path} has {len(found)} {language} blocks with {having!r}"
    return found[0]


def of(path: str, language: str) -> list[Block]:
    return [block for block in blocks(path) if block.language == language]


def is_config(block: Block) -> bool:
    """Whether Python code is an mm config: it assigns known keys, and does nothing else."""
    keys = {
        "_base_", "card", "custom_imports", "default_hooks", "mixup", "model", "optim_wrapper",
        "param_scheduler", "test_dataloader", "test_evaluator", "train_cfg", "train_dataloader",
        "val_dataloader", "val_evaluator", "custom_hooks",
    }  # fmt: skip
    names = set()
    for statement in ast.parse(block.code).body:
        if not isinstance(statement, ast.Assign):
            return False
        names |= {getattr(target, "id", "") for target in statement.targets}
    return bool(names) and names <= keys


def file_name(block: Block) -> str:
    """The name that the first line of a block gives its file, or one of its own."""
    found = re.match(r"# (\w+\.(?:py|toml))\b", block.code)
    return found[1] if found else f"block_{block.line}.py"


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a console block, comments left out."""
    text = block.code.replace("\\\n", " ")
    lines = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("$ ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def try_command(words: list[str], files: set[str]) -> None:
    """Fail if a command would not be understood; ``files`` are those that the page makes."""
    if words[0] == "mixplug":
        _try_mixplug(words[1:], files)
    elif "timm_hooks.train" in words:
        _try_timm(words[words.index("timm_hooks.train") + 1 :])
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), words
    elif words[0] in ("pip", "uv"):
        _try_install(words)
    else:
        assert words[0] in OTHER_PROGRAMS, f"{words[0]!r} is no program of {OTHER_PROGRAMS}"


OTHER_PROGRAMS = ("bash", "cd", "git", "ls", "pytest", "python", "source")


def _try_timm(words: list[str]) -> None:
    """What the launcher makes of a command, and the mixer that it names."""
    import mixplug
    from timm_hooks.train import split_arguments

    script, *rest = words
    assert script in ("TRAIN_PY",) or script.endswith("/train.py"), script
    Path("train.py").touch()
    _, impl, settings, passed_on = split_arguments(["train.py", *rest])
    assert passed_on and not passed_on[0].startswith("-"), f"no data set in {words}"
    if impl not in PLACEHOLDERS:
        mixplug.build(impl, **settings)


def _try_install(words: list[str]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {*settings["project"]["optional-dependencies"]}
    named = {
        e for w in words for inside in re.findall(r"\[([\w,]+)\]", w) for e in inside.split(",")
    }
    named |= {after for word, after in itertools.pairwise(words) if word == "--extra"}
    assert named <= extras, named - extras


def _try_mixplug(words: list[str], files: set[str]) -> None:
    import typer

    from mixplug.cli import app
    from mixplug.cli.tools import find_config

    command = typer.main.get_command(app)
    rest, path = list(words), ["mixplug"]
    while hasattr(command, "commands") and (rest or not command.invoke_without_command):
        assert rest and rest[0] in command.commands, f"{' '.join(path)} has no command {rest[:1]}"
        path.append(rest[0])
        command = command.commands[rest.pop(0)]
    context = command.context_class(command, info_name=path[-1], **command.context_settings)
    given, extra, _ = command.make_parser(context).parse_args(args=rest)
    assert not extra or context.allow_extra_args, f"{words} has more than {path} takes: {extra}"
    for parameter in command.params:
        value = given.get(parameter.name)
        if parameter.required:
            assert value not in (None, (), []), f"{words} lacks {parameter.name}"
        if parameter.name == "config" and value not in (None, *files, *PLACEHOLDERS):
            assert value.startswith("timm:") or find_config(value)


PLACEHOLDERS = ("CONFIG", "IMPL")
