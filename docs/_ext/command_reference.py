"""A page of all commands, made from the typer app: arguments, options, defaults."""

from __future__ import annotations

import re
from pathlib import Path

import click
import typer
from docstrings import escaped


def page() -> str:
    """The page, as reStructuredText."""
    from mixplug.cli import app

    root = typer.main.get_command(app)
    return "\n".join([*title("Command line", "="), *_walk(root, ["mixplug"])]) + "\n"


def _walk(command: click.Command, path: list[str]) -> list[str]:
    if hasattr(command, "commands"):
        own = [] if len(path) == 1 else [*title(" ".join(path), "-"), _help(command), ""]
        return own + [
            line for name, inner in command.commands.items() for line in _walk(inner, [*path, name])
        ]
    arguments = [_metavar(p) for p in command.params if p.param_type_name == "argument"]
    rows = [(_names(p), _default(p), _about(p)) for p in command.params]
    words = " ".join([*path, *arguments]) + (" [OPTIONS]" if len(rows) > len(arguments) else "")
    return [
        *title(" ".join(path), "~" if len(path) > 2 else "-"),
        _help(command), "", ".. code-block:: text", "", f"   {words}", "",
        *(table(("Argument or option", "Default", "Meaning"), rows) if rows else []),
    ]  # fmt: skip


def _help(command: click.Command) -> str:
    paragraphs = (command.help or "").strip().split("\n\n")
    return "\n\n".join(_text(p) for p in paragraphs)


def _text(help_text: str) -> str:
    """One line, in which `x` is code and not emphasis."""
    return escaped(re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", " ".join(help_text.split())))


def _metavar(parameter: click.Parameter) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _names(parameter: click.Parameter) -> str:
    if parameter.param_type_name == "argument":
        return f"``{_metavar(parameter)}``"
    return " ".join(f"``{name}``" for name in [*parameter.opts, *parameter.secondary_opts])


def _default(parameter: click.Parameter) -> str:
    value = parameter.default
    plain = value is not None and not callable(value) and parameter.param_type_name != "argument"
    return f"``{value}``" if plain else ""


def _about(parameter: click.Parameter) -> str:
    return _text(getattr(parameter, "help", "") or "")


def title(text: str, sign: str) -> list[str]:
    """A heading and an empty line."""
    return [text, sign * max(len(text), 3), ""]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], widths: str = "") -> list[str]:
    """Rows as a list-table; the browser chooses the widths if none are given."""
    options = [f"   :widths: {widths}"] if widths else []
    lines = [".. list-table::", "   :header-rows: 1", "   :class: keys", *options, ""]
    for row in [head, *rows]:
        for i, cell in enumerate(row):
            text = re.sub(r"^(\(?\w+[.)]( |$)|[-+•] )", r"\\\1", cell)  # no list begins here
            lines.append(f"   {'*' if i == 0 else ' '} - {text}".rstrip())
    return [*lines, ""]


def write(path: Path, text: str) -> None:
    """Write a page if it is another one, so that Sphinx reads again only what has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def _build(app) -> None:
    write(Path(app.srcdir) / "reference" / "commands.rst", page())


def setup(app) -> dict[str, bool]:
    """Write the page before Sphinx looks for pages."""
    app.connect("builder-inited", _build)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
