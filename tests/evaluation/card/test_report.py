"""A card as a table and a page, and which checkpoints and images it is made of."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation import carded
from PIL import Image

from mixplug.evaluation.card import Card, Settings, Stream, make_card
from mixplug.evaluation.card.checkpoints import expand, facts_of, names_of
from mixplug.evaluation.card.lines import Line, lines_of
from mixplug.evaluation.card.outside import fingerprint_of_files, ood_streams, overlaps
from mixplug.evaluation.card.report import markdown, write_card

NAMES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    subjects = [carded.subject("a<b>", 0), carded.subject("a long name of a checkpoint.pth", 1)]
    settings = Settings(batch_size=16, neighbors=3)
    return make_card(subjects, carded.data(), settings, tmp_path_factory.mktemp("report"))


def test_best_is_what_is_printed_as_best() -> None:
    assert Line("", "", [1.04, 1.0, 0.98], True).best == [False, False, False]  # all are 1.0
    assert Line("", "", [1.06, 1.0, None], True).best == [True, False, False]
    assert Line("", "", [1.06, 1.0, None], True).cells == ["1.1", "1.0", "–"]
    assert Line("", "", [2.0, 1.0, 1.04], False).best == [False, True, True]
    assert Line("", "", [2.0, 1.0], None).best == [False, False]
    assert Line("", "", [2000.0], True).best == [False]
    assert Line("", "", [12345.6, 999.0], True).best == [True, False]


def test_numbers_of_the_table_are_those_of_the_json(card: Card) -> None:
    lines = {line.label: line for line in lines_of(card)}  # of one set outside
    for place, name in enumerate(card.names):
        found = card.results[name]
        assert lines["top-1 accuracy, %"].values[place] == 100 * found["clean"]["top1"]
        assert lines["FGSM 8/255: top-1 error, %"].values[place] == 100 * found["fgsm"]["error"]
        assert lines["ECE, %"].values[place] == 100 * found["calibration"]["ece"]
        scaled = lines["ECE, %, temperature scaled"].values[place]
        assert scaled == 100 * found["calibration"]["ece_scaled"]
        auroc = lines["AUROC by energy, %"].values[place]
        assert auroc == 100 * found["ood"]["gray"]["energy"]["auroc"]
        assert lines["alignment"].values[place] == found["representation"]["alignment"]
    better = {line.label: line.higher_is_better for line in lines.values()}
    assert better["FPR95 by energy, %"] is False
    assert better["intrusion distance"] is True


def test_markdown_has_a_cell_for_every_network(card: Card) -> None:
    rows = [row for row in markdown(card, lines_of(card)).splitlines() if row.startswith("|")]
    assert {row.count("|") - row.count("\\|") for row in rows} == {4}
    assert all(name in rows[0] for name in card.names)  # whole: their ends are often alike
    assert any("**" in row for row in rows[3:])


def test_the_page_is_whole_and_fetches_nothing(card: Card, tmp_path: Path) -> None:
    files = write_card(card, tmp_path, NAMES)
    assert [file.name for file in files[:3]] == ["card.json", "card.md", "card.html"]
    page = files[2].read_text()
    assert "a&lt;b&gt;" in page and "a<b>" not in page
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    for line in lines_of(card):
        assert all(cell in page for cell in line.cells)
    assert json.loads(files[0].read_text())["networks"][0]["name"] == "a<b>"
    for file in files[3:]:
        with Image.open(file) as picture:
            assert min(picture.size) > 200


def test_reasons_are_on_the_page(card: Card, tmp_path: Path) -> None:
    card.missing["a<b>"]["fgsm"] = "no gradient"
    card.facts["warnings"].append("gray has classes")
    try:
        page = write_card(card, tmp_path, NAMES)[2].read_text()
        table = markdown(card, lines_of(card))
    finally:
        card.missing["a<b>"].clear()
        card.facts["warnings"].clear()
    for text in ("no gradient", "gray has classes"):
        assert text in page and text in table


def test_a_run_means_its_last_and_its_best(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("epoch_1.pth", "epoch_2.pth", "best_accuracy_top1_epoch_1.pth"):
        (run / name).write_bytes(b"")
    (run / "last_checkpoint").write_text("/elsewhere/run/epoch_2.pth")
    names = [path.name for path in expand([run])]
    assert names == ["epoch_2.pth", "best_accuracy_top1_epoch_1.pth"]
    timm = tmp_path / "timm"
    timm.mkdir()
    for name in ("last.pth.tar", "model_best.pth.tar"):
        (timm / name).write_bytes(b"")
    assert [path.name for path in expand([timm])] == ["last.pth.tar", "model_best.pth.tar"]
    assert expand([run / "epoch_1.pth"]) == [run / "epoch_1.pth"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither a last_checkpoint nor"):
        expand([tmp_path / "empty"])
    with pytest.raises(ValueError, match="There is no checkpoint"):
        expand([tmp_path / "no.pth"])


def test_names_have_as_much_of_the_path_as_they_need() -> None:
    assert names_of([Path("c/a/x.pth"), Path("c/a/y.pth")]) == ["a/x.pth", "a/y.pth"]
    assert names_of([Path("a/c/x.pth"), Path("b/c/x.pth")]) == ["a/c/x.pth", "b/c/x.pth"]
    assert names_of([Path("x.pth")]) == ["x.pth"]
    assert names_of([]) == []
    with pytest.raises(ValueError, match="one occurs twice"):
        names_of([Path("a/x.pth"), Path("a/x.pth")])


def test_a_checkpoint_says_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(b"abc")
    meta = {"epoch": 3, "seed": 7, "hook_msgs": {}}
    facts = facts_of(path, {"meta": meta, "state_dict": {}})
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of abc
    assert facts == {"checkpoint": str(path), "sha256": digest, "epoch": 3, "seed": 7}
    assert facts_of(path, {"epoch": 9, "arch": "resnet"})["epoch"] == 9  # timm's


def picture(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(rows).save(path)


def test_sets_outside_get_the_size_of_the_test_images(tmp_path: Path) -> None:
    picture(tmp_path / "lsun" / "a.png", 12, 20)
    test = carded.data().test
    settings = Settings(ood=[{"root": str(tmp_path / "lsun"), "fit": "crop", "name": "LSUN"}])
    streams = ood_streams(settings, test)
    assert [one.name for one in streams] == ["LSUN", "uniform noise", "gaussian noise"]
    assert [len(one) for one in streams] == [1, carded.COUNT, carded.COUNT]
    whole = torch.from_numpy(np.array(Image.open(tmp_path / "lsun" / "a.png"))).permute(2, 0, 1)
    image, label = streams[0].dataset[0]
    torch.testing.assert_close(image, whole[:, 2:10, 6:14])
    assert label == -1
    assert streams[1].dataset[0][0].shape == (3, 8, 8)
    assert len({one.fingerprint for one in streams}) == 3


def test_a_stream_of_files_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 8, 8)
    before = fingerprint_of_files([tmp_path / "a.png"], "crop 8")
    assert fingerprint_of_files([tmp_path / "a.png"], "crop 8") == before
    assert fingerprint_of_files([tmp_path / "a.png"], "resize 8") != before
    picture(tmp_path / "a.png", 9, 8)
    assert fingerprint_of_files([tmp_path / "a.png"], "crop 8") != before
    before = fingerprint_of_files([tmp_path / "a.png"], "")
    found = (tmp_path / "a.png").stat()
    os.utime(tmp_path / "a.png", ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert fingerprint_of_files([tmp_path / "a.png"], "") != before  # written anew, of one size


def test_a_class_that_is_outside_and_inside_is_told(tmp_path: Path) -> None:
    for name in ("Red", "purple"):
        picture(tmp_path / "set" / name / "a.png", 8, 8)
    settings = Settings(ood=[{"root": str(tmp_path / "set")}])
    (warning,) = overlaps(settings, NAMES)
    assert "red" in warning and "purple" not in warning
    assert overlaps(settings, ["yellow"]) == []
    whole = Settings(ood=[{"root": str(tmp_path / "set" / "Red")}])
    assert "red" in overlaps(whole, NAMES)[0]  # the folder itself
    assert overlaps(Settings(parts=("clean",), ood=settings.ood), NAMES) == []


def test_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        picture(tmp_path / folder / "test" / "0.png", 8, 8)
    roots = [{"root": str(tmp_path / folder / "test")} for folder in ("a", "b")]
    test = carded.data().test
    streams = ood_streams(Settings(ood=roots, noise=()), test)
    assert [one.name for one in streams] == [one["root"] for one in roots]
    named = [{**one, "name": "known"} for one in roots]
    with pytest.raises(ValueError, match="are called known"):
        carded.Data(test, NAMES, None, ood_streams(Settings(ood=named, noise=()), test))
    as_test = [{**roots[0], "name": test.name}]
    with pytest.raises(ValueError, match="are called test"):
        carded.Data(test, NAMES, None, ood_streams(Settings(ood=as_test, noise=()), test))


def test_images_of_different_sizes_are_refused() -> None:
    class Ragged(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(3, 8 + index, 8), 0

    with pytest.raises(ValueError, match="images of ragged are of different sizes"):
        list(Stream("ragged", Ragged(), "").batches(2))


def test_a_folder_that_cannot_be_written_to(card: Card, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        write_card(card, tmp_path / "file" / "card", NAMES)
    assert os.listdir(tmp_path) == ["file"]
