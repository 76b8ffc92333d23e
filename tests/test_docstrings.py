"""Docstrings are read as Google style has them: summary, description, keys, also of bases."""

from __future__ import annotations

import pytest

from mixplug.docstrings import blocks, examples, meanings, parse, plain_text, source


class Base:
    """A base.

    Args:
        first: of the base, see :class:`mixplug.Mixer`.
        second (int, optional): in ``pixels``,
            over two lines.
        **options: of the base.

    Returns:
        Nothing: this is no key.
    """

    def __init__(self, first: int, second: int = 2, **options: int) -> None: ...


class Derived(Base):
    r"""Summary over
    two lines [0].

    A formula:

    .. math::
        x^2

        y

    And code::

        loss = dict(
            type='Derived')

    - an item
      that goes on
    - another: with a colon

    Attributes:
        third, fourth: both.
        second: said again.

    - [0]: A paper. Its title: subtitle.
    """

    def __init__(self, third: int, **options: int) -> None: ...


class Silent(Derived):
    pass


def test_summary_and_description() -> None:
    found = parse(Derived.__doc__)
    assert found.summary == "Summary over two lines."
    assert found.description.startswith("A formula:") and "another: with" in found.description
    assert "third" not in found.description
    assert parse(None).summary == parse("").description == ""


def test_blocks_are_text_or_literal() -> None:
    found = list(blocks(parse(Derived.__doc__).description))
    assert found == [
        (False, "A formula:"),
        (True, "x^2\n\ny"),
        (False, "And code:"),
        (True, "loss = dict(\n    type='Derived')"),
        (False, "- an item\n  that goes on\n- another: with a colon"),
    ]
    assert examples(parse(Derived.__doc__).description)[1].startswith("loss = dict(")
    assert list(blocks("::\n\n    a = 1\n")) == [(True, "a = 1")]


def test_meanings_come_from_the_class_first_then_from_its_bases() -> None:
    found = meanings(Derived)
    assert found["third"] == found["fourth"] == "both."
    assert found["first"] == "of the base, see mixplug.Mixer."
    assert found["second"] == "said again."
    assert meanings(Base)["second"] == "in pixels, over two lines."
    assert found["**options"] == "of the base."
    assert "Nothing" not in found and "[0]" not in str(found.keys())


def test_a_class_without_a_docstring_has_its_bases_meanings() -> None:
    assert meanings(Silent) == meanings(Derived)


def test_a_function_has_meanings_too() -> None:
    def f(x: int) -> None:
        """Do it.

        Args:
            x: a number.
        """

    assert meanings(f) == {"x": "a number."}


def test_plain_text() -> None:
    text = "See :func:`mixplug.mix` of ``x``::\n\n    a = 1\n\n.. math::\n    x^2\n\nThe end."
    expected = "See mixplug.mix of x:\n\n    a = 1\n\n    x^2\n\nThe end."
    assert plain_text(text) == expected
    assert plain_text("") == ""


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("Accuracy of neighbors, in percent (6.5.3).", "thesis 6.5.3"),
        ("Errors (Tables 3.6, 5.6), and others.", "thesis Tables 3.6, 5.6"),
        ("Quality (thesis 4.4.4) of embeddings.", "thesis 4.4.4"),
        ("Mixup (eq. 3.1).", "thesis eq. 3.1"),
        ("Images of 512x4 (or 8x8) pixels, version 1.2.", ""),
        ("Maps (B, C, H, W).", ""),
    ],
)
def test_source_of_a_summary(summary: str, expected: str) -> None:
    assert source(summary) == expected
