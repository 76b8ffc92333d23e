"""``mixplug list``: what there is, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mixplug.cli.screen import console

if TYPE_CHECKING:
    from mixplug.overview import Named


def list_(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="A group, such as evaluators, or a name, such as AlignMixup"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For tools: print JSON")] = False,
) -> None:
    """List everything that has a name, one group, or explain one name with its keys.

    Groups are mixers, losses, metrics, self-supervised methods, and for OpenMMLab configs models,
    backbones, evaluators, data sets, samplers, transforms, hooks and more. Names of installed
    plugins are listed too.
    """
    from mixplug import overview

    words = " ".join(what or ())
    try:
        found = overview.find(words) if words else overview.everything()
    except KeyError as error:
        raise typer.BadParameter(error.args[0]) from None
    complete = found and all(one.kind in overview.NEVER_OF_MM for one in found)
    missing = None if complete else overview.without_openmmlab()
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in found], indent=2, ensure_ascii=False))
    elif words and overview.is_name(words):
        console().print(Group(*_all_forms(found)))
    else:
        console().print(_groups(found))
    if missing:
        Console(stderr=as_json).print(Text(missing))


def _groups(found: Sequence[Named]) -> Group:
    """A table for each group: names with their aliases, where they work, and what they are."""
    from mixplug.overview import title

    kinds = dict.fromkeys(one.kind for one in found)
    parts: list[RenderableType] = []
    for kind in kinds:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(width=24, overflow="fold")
        table.add_column(width=16, overflow="fold")
        table.add_column(ratio=1, overflow="fold")
        for name in dict.fromkeys(one.name for one in found if one.kind == kind):
            rows = [one for one in found if (one.kind, one.name) == (kind, name)]
            hosts = dict.fromkeys(host for one in rows for host in one.hosts)
            named = Text(name, style="bold")
            for alias in rows[-1].aliases:
                named.append(f"\n{alias}" if alias != name.lower() else "", style="not bold dim")
            summary = Text(rows[-1].summary)
            table.add_row(named, Text(", ".join(hosts), style="dim"), summary)
        parts += [Text(title(kind), style="bold cyan"), Padding(table, (0, 0, 1, 2))]
    parts.append(Text("mixplug list NAME explains a name and its keys.", style="dim"))
    return Group(*parts)


def _all_forms(found: Sequence[Named]) -> list[RenderableType]:
    """A name in full, and its other forms only as far as they have other keys."""
    first, *others = found
    parts: list[RenderableType] = [_explained(first)]
    for other in others:
        if {key.name for key in other.keys} <= {key.name for key in first.keys}:
            head = f"\n  In {', '.join(other.hosts)}"
            parts += [Text(head, style="bold"), Padding(Text(other.example, "cyan"), (0, 0, 1, 4))]
        else:
            parts.append(_explained(other))
    return parts


def _explained(one: Named) -> Group:
    """Everything about one name."""
    from mixplug.docstrings import blocks, plain

    of_mm = one.hosts == ("mm",)
    head = Text(f"mixplug.{one.name}" if of_mm else one.name, style="bold")
    facts = [
        one.kind,
        *([f"alias {', '.join(one.aliases)}"] if one.aliases else []),
        f"for {', '.join(one.hosts)}",
        *([one.reference] if one.reference else []),
    ]
    head.append(f"  {', '.join(facts)}", style="dim")
    parts: list[RenderableType] = [head, Padding(Text(one.summary), (0, 0, 1, 2))]
    for is_code, block in blocks(one.description):
        text = block if is_code else _reflowed(plain(block))
        if is_code and block == one.example:
            continue
        parts.append(Padding(Text(text, style="cyan" if is_code else ""), (0, 0, 1, 2)))
    if one.keys:
        parts.append(Padding(_keys(one), (0, 0, 1, 2)))
    for names, which in ((one.higher_is_better, "higher"), (one.lower_is_better, "lower")):
        if names:
            parts.append(Padding(Text(f"Better when {which}: {', '.join(names)}"), (0, 0, 1, 2)))
    parts += [Text("  Example", style="bold"), Padding(Text(one.example, "cyan"), (0, 0, 1, 4))]
    return Group(*parts)


def _keys(one: Named) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("key", "default", "meaning"):
        table.add_column(heading, overflow="fold")  # a name longer than the column is not cut
    for key in one.keys:
        default = "required" if key.required else key.default or ""
        table.add_row(Text(key.name, "bold"), Text(default, "dim"), Text(key.meaning))
    return table


def _reflowed(paragraph: str) -> str:
    """A paragraph in one line, a list with one line an item."""
    lines: list[str] = []
    for line in paragraph.splitlines():
        if lines and not line.lstrip().startswith("- "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
    return "\n".join(lines)
