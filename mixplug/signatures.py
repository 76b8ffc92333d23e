"""Signatures of classes that pass keyword arguments on to another class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any


def passing_on(
    function: Callable[..., Any], receiver: Callable[..., Any], hidden: Iterable[str] = ("self",)
) -> inspect.Signature:
    """The signature of a function that passes its ``**kwargs`` on to a receiver.

    ::

        def __init__(self, backbone, ratio=0.3, **settings):
            super().__init__(backbone, **settings)

    The keys of the receiver take the place of ``**settings``, as keyword-only arguments. Keys that
    the function names itself are its own. Without ``**kwargs`` the signature is the function's.

    Args:
        function: with or without ``**kwargs``.
        receiver: the class or function that is given them.
        hidden: names that are left out of the result.
    """
    left_out = set(hidden)
    own = [p for p in inspect.signature(function).parameters.values() if p.name not in left_out]
    if not any(p.kind is p.VAR_KEYWORD for p in own):
        return inspect.Signature(own)
    own = [p for p in own if p.kind is not p.VAR_KEYWORD]
    named = left_out | {p.name for p in own}
    more = [p for p in inspect.signature(receiver).parameters.values() if p.name not in named]
    passed = [
        p if p.kind in (p.VAR_KEYWORD, p.KEYWORD_ONLY) else p.replace(kind=p.KEYWORD_ONLY)
        for p in more
        if p.kind is not p.VAR_POSITIONAL
    ]
    return inspect.Signature([*own, *passed])
