"""Exclusion of one item per query, usually the query itself, from its neighbors.

The search finds k + 1 neighbors, from which one is removed. Letters: Q queries, k neighbors.
"""

from __future__ import annotations

from torch import Tensor


def check_exclude(exclude: Tensor | None, queries: int, gallery: int | None) -> int:
    """Number of additional neighbors to search for: 1 if an item is excluded, otherwise 0.

    Args:
        exclude: ids to exclude, (Q,), -1 for none; or None.
        queries: Q.
        gallery: size of the gallery; None if it is not known yet, then ids are not checked.

    Raises:
        ValueError: wrong shape, or an id is not in the gallery.
    """
    if exclude is None:
        return 0
    if exclude.shape != (queries,):
        raise ValueError(
            f"search needs exclude (Q,), one id per query, got {tuple(exclude.shape)} for "
            f"{queries} queries."
        )
    largest = int(exclude.max()) if len(exclude) else -1
    if gallery is not None and largest >= gallery:
        raise ValueError(
            f"search needs exclude < {gallery}, the size of the gallery, got {largest}."
        )
    return int(largest >= 0)


def check_k(k: int, gallery: int, extra: int) -> None:
    """Require 1 <= k <= number of gallery items that remain if ``extra`` are excluded.

    Raises:
        ValueError: k is out of range.
    """
    if not 1 <= k <= gallery - extra:
        less = ", one of them excluded" if extra else ""
        raise ValueError(
            f"search needs k between 1 and {gallery - extra}, got {k}. The gallery has {gallery} "
            f"items{less}."
        )


def remove_excluded(values: Tensor, ids: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
    """Remove one neighbor per query: the excluded id, or the last one if it is not among them.

    The tensors are modified in place.

    Args:
        values: distances, (Q, k + 1).
        ids: ids, (Q, k + 1).
        excluded: ids to remove, (Q,), -1 for none; or None to remove nothing.

    Returns:
        Distances and ids, (Q, k) each, or unchanged if ``excluded`` is None.
    """
    if excluded is None:
        return values, ids
    excluded = excluded.to(ids.device).masked_fill(excluded.to(ids.device) < 0, -2)
    # Few rows have the excluded id in another column than the first: a query is nearest to itself.
    rows = (ids[:, 0] != excluded).nonzero()[:, 0]
    removed = ids[rows] == excluded[rows, None]
    removed[:, -1] |= ~removed.any(1)
    rest = values[rows][~removed], ids[rows][~removed]
    values, ids = values[:, 1:], ids[:, 1:]
    values[rows], ids[rows] = (t.view(len(rows), ids.shape[1]) for t in rest)
    return values, ids
