"""Signatures of functions that pass keyword arguments on."""

from __future__ import annotations

import inspect

from mixplug.signatures import passing_on


class Base:
    def __init__(self, first: int, second: int = 2, *more: int, third: int = 3) -> None: ...


def passing(self: object, own: int, second: int = 7, **settings: int) -> None: ...


def test_keys_of_the_receiver_take_the_place_of_the_settings() -> None:
    found = passing_on(passing, Base)
    assert str(found) == "(own: 'int', second: 'int' = 7, *, first: 'int', third: 'int' = 3)"
    assert inspect.signature(passing).parameters["settings"]  # which is as it was


def test_without_settings_it_is_the_function_s_own() -> None:
    def plain(self: object, own: int) -> None: ...

    assert str(passing_on(plain, Base)) == "(own: 'int')"


def test_settings_of_the_receiver_are_kept() -> None:
    def open_ended(a: int, **rest: int) -> None: ...

    found = passing_on(passing, open_ended)
    assert [p.name for p in found.parameters.values()] == ["own", "second", "a", "rest"]
    assert found.parameters["rest"].kind is inspect.Parameter.VAR_KEYWORD
