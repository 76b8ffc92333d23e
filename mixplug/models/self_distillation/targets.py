"""Targets: what the student of self-distillation learns to predict of the teacher."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLS = "cls"
TOKENS = ("cls", "patch")


@dataclass(kw_only=True)
class Target:
    """A softmax over the outputs of a head, which the student predicts and the teacher provides.

    For each of its targets a method owns a head of the student, a head of the teacher and a center.

    Attributes:
        name: of the target, such as 'cls' or 'patch'; part of names in the state dict.
        tokens: which tokens the head takes: 'cls' or 'patch'.
        head: keys of :class:`mixplug.models.self_distillation.DINOHead` without ``in_dim``; or the
            name of an earlier target, whose heads are then shared.
        student_temperature: τ_s > 0.
        teacher_temperature: τ_t > 0; schedules may set it.
        center_decay: weight of the old center, in [0, 1].
    """

    name: str
    tokens: str = "cls"
    head: Mapping[str, Any] | str | None = None
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_decay: float = 0.9

    @property
    def center(self) -> str:
        """Name of the buffer that holds the center: 'center', or 'center_patch' of 'patch'."""
        return "center" if self.name == CLS else f"center_{self.name}"

    def check(self, owner: str, others: Mapping[str, Target]) -> None:
        """Refuse settings that are not allowed.

        Args:
            owner: name of the method, for messages.
            others: targets that the method has already.

        Raises:
            ValueError: a setting that is not allowed, or a name that is taken.
        """
        who = owner if self.name == CLS else f"{owner} with the target {self.name!r}"
        for key, holds, allowed in (
            ("name", _is_word(self.name) and self.name not in others, _free(others)),
            ("tokens", self.tokens in TOKENS, f"in {TOKENS}"),
            ("head", not isinstance(self.head, str) or self.head in others, f"in {[*others]}"),
            ("student_temperature", self.student_temperature > 0, "> 0"),
            ("teacher_temperature", self.teacher_temperature > 0, "> 0"),
            ("center_decay", 0 <= self.center_decay <= 1, "in [0, 1]"),
        ):
            if not holds:
                raise ValueError(f"{who} needs {key} {allowed}, got {getattr(self, key)!r}.")


def _is_word(name: str) -> bool:
    """Whether a name can be an attribute, and a key of ``dict(...)`` in a config."""
    return name.isidentifier() and not keyword.iskeyword(name)


def _free(others: Mapping[str, Target]) -> str:
    taken = f" other than {', '.join(others)}" if others else ""
    return f"to be a Python identifier{taken}"
