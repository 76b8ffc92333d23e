"""Read the settings in the text of an mm config, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 2_000_000  # characters; a config of mmengine with all its bases has some 20,000


def settings_in(text: object) -> dict[str, Any]:
    """The variables of a config whose values are literals, ``dict(...)`` included.

    Other values, such as calls of functions, become None.

    Args:
        text: what mmengine saves in a checkpoint as ``meta['cfg']``; anything else gives {}.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        return {}
    try:
        body = ast.parse(text).body
        return {
            target.id: _value(line.value)
            for line in body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def walk(value: Any) -> Iterator[Mapping[str, Any]]:
    """All dictionaries in a value, outer ones first."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from walk(inner)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [_value(item) for item in node.elts]
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {key.value: _value(item) for key, item in pairs if isinstance(key, ast.Constant)}
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return {key.arg: _value(key.value) for key in node.keywords if key.arg}
        case ast.UnaryOp(op=ast.USub()):
            inner = _value(node.operand)
            return -inner if isinstance(inner, int | float) else None
    return None
