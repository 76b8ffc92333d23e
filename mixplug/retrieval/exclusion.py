"""The one item that a query is not to find, mostly itself.

One neighbor more than asked for is found, and one is taken out. Letters: Q queries, k neighbors.
"""

from __future__ import annotations

from torch import Tensor


def check_exclude(exclude: Tensor | None, queries: int, gallery: int | None) -> int:
    """How many neighbors more must be found: 1 if anything is left out.

    Args:
        exclude: (Q,) ids, -1 for none; or None.
        queries: Q.
        gallery: its size; None where it is not known yet, and ids may be any.

    Raises:
        ValueError: another shape, or an id that the gallery does not have.
    """
    if exclude is None:
        return 0
    if exclude.shape != (queries,):
        raise ValueError(
            f"search needs exclude (Q,), one id per query, got {tuple(exclude.shape)} for "
            f"{queries} queries."
        )
    most = int(exclude.max()) if len(exclude) else -1
    if gallery is not None and most >= gallery:
        raise ValueError(f"search needs exclude < {gallery}, the gallery's size, got {most}.")
    return int(most >= 0)


def check_k(k: int, gallery: int, extra: int) -> None:
    """Refuse a k < 1, and one that is, with ``extra`` left out, more than the gallery."""
    if not 1 <= k <= gallery - extra:
        less = ", one of them left out" if extra else ""
        raise ValueError(
            f"search needs k between 1 and {gallery - extra}, got {k}: gallery smaller than K "
            f"({gallery} items{less})."
        )


def without(values: Tensor, ids: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """One neighbor less: the own id, or the last one where that is not among them. In place.

    Args:
        values: (Q, k + 1) distances.
        ids: of the same shape.
        own: (Q,) ids to leave out, -1 for none; or None, where there is nothing to take out.
    """
    if own is None:
        return values, ids
    own = own.to(ids.device).masked_fill(own.to(ids.device) < 0, -2)
    late = (ids[:, 0] != own).nonzero()[:, 0]  # few: a query is nearest to itself
    dropped = ids[late] == own[late, None]
    dropped[:, -1] |= ~dropped.any(1)
    rest = values[late][~dropped], ids[late][~dropped]
    values, ids = values[:, 1:], ids[:, 1:]
    values[late], ids[late] = (t.view(len(late), ids.shape[1]) for t in rest)
    return values, ids
