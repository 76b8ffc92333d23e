"""Steps of DINO and DoRA give the numbers that they gave when a method had one target only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distilling import HEAD, total, views, vit

import mixplug

# For every batch the losses and monitors by name; at last norms of student, teacher and center.
RECORDED: dict[str, tuple[dict[str, Any], list[list[float]], list[float]]] = {
    "DINO": ({}, [
        [0, 0.1586605054, 0.798807212, 0.05628860228, 0.9011791151],
        [0.4552049853, 0.1860148823, 0.3720126422, 0.5503866381, 0.007640886289],
        [0.4552049853, 0.1860119032, 0.3720189423, 0.5503907147, 0.007640130742],
        [0.7317243116, 0.443525834, 0.8862955184, 1.204190405, 0.125630947],
        [0.9465824874, 1.987193716, 1.571022861, 0.4161708548],
        [0.9465824874, 1.989281395, 1.571013312, 0.418268083],
        [1.100691894, 0.7290256468, 1.462483719, 1.714771552, 0.4767378142],
    ], [446.069746935, 127.25553806, 1.20579472634]),
    "DINO sum": ({"reduction": "sum"}, [
        [0, 0.9519630322, 4.792843272, 0.05628860228, 0.9011791151],
        [0.4552049853, 9.788451029, 19.56883679, 0.5564219732, 4.33645933],
        [0.4552049853, 9.789995847, 19.57198202, 0.5564239945, 4.337238983],
        [0.7306631999, 3.492050898, 6.9839871, 1.440886434, 0.3051198994],
        [0.869351481, 4.229240206, 1.772095117, 0.3425249863],
        [0.869351481, 4.22908768, 1.772216312, 0.3423275283],
        [0.8343633236, 5.24587422, 10.49180427, 1.596284221, 1.026662195],
    ], [2671.44554461, 745.879028141, 0.648832687574]),
    "DoRA": ({"objects": 2}, [
        [0, 0.192351389, 0.5772866566, 0.4375, 0.05628860228, 0.7133494434],
        [0.4552049853, 0.2790782284, 0.2790994259, 0.3993055556, 0.5505278835, 0.007649770819],
        [0.4552049853, 0.2791483278, 0.2791072352, 0.3923611111, 0.5505328435, 0.007722719456],
        [0.7315436723, 0.6660209174, 0.665066543, 0.3923611111, 1.204765399, 0.1263220611],
        [0.946192645, 1.991455441, 0.3993055556, 1.571354506, 0.4201009354],
        [0.946192645, 1.993288866, 0.4305555556, 1.57134045, 0.4219484159],
        [1.100125617, 1.12906091, 1.129707477, 0.3402777778, 1.714826599, 0.5439417879],
    ], [335.842961916, 97.384047519, 1.2050901711]),
    "DoRA random": ({"objects": 2, "mask": "random", "tracking": False}, [
        [0, 0.192351389, 0.5364508153, 0.6666666865, 0.05628860228, 0.6725136021],
        [0.4552049853, 0.2911801966, 0.291198415, 0.7048611045, 0.5751715978, 0.007207013868],
        [0.4552049853, 0.2912453212, 0.2912058712, 0.715277791, 0.575176741, 0.007274451327],
        [0.7273135435, 0.6736039562, 0.6727241009, 0.6770833135, 1.219297068, 0.1270309886],
        [0.9414299688, 1.98778474, 0.694444418, 1.575091798, 0.4126929423],
        [0.9414299688, 1.989769907, 0.680555582, 1.575077089, 0.414692818],
        [1.095459252, 1.123653544, 1.124523018, 0.725694418, 1.715120491, 0.5330560701],
    ], [327.292180203, 95.0904908626, 1.20082967438]),
}  # fmt: skip


def run(name: str, keys: dict[str, Any]) -> tuple[list[list[float]], list[float]]:
    """Five steps of one or two batches, with changing numbers and without small views once."""
    torch.manual_seed(0)
    settings = {"student_temperature": 0.4, "ema_decay": 0.9, "center_decay": 0.7, **keys}
    backbone = vit(drop_path_rate=0.2)
    method: Any = mixplug.build(name, "selfsup", backbone=backbone, head=HEAD, **settings).double()
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.1, momentum=0.9)
    method.attach(optimizer)
    rows = []
    for step in range(5):
        method.freeze_last_layer = step < 1
        method.teacher_temperature = 0.2 + 0.05 * step
        for batch in range(1 + step % 2):
            torch.manual_seed(100 * step + batch)
            found = method(views(torch.float64, m=0 if step == 3 else 2))
            total(found).backward()
            rows.append([float(found[key].detach()) for key in sorted(found)])
        optimizer.step()
        optimizer.zero_grad()
    state = method.state_dict()
    norms = [
        float(torch.stack([v.norm() for k, v in state.items() if k.startswith(part)]).norm())
        for part in ("student.", "teacher.", "center")
    ]
    return rows, norms


@pytest.mark.parametrize("case", RECORDED)
def test_steps_are_those_of_before(case: str) -> None:
    keys, rows, norms = RECORDED[case]
    found, found_norms = run(case.partition(" ")[0], keys)
    assert len(found) == 7 and min(map(len, found)) >= 4
    for one, other in zip(found, rows, strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    assert found_norms == pytest.approx(norms, rel=1e-6)
