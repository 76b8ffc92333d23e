"""``mixplug eval davis`` on made videos whose answers are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from evaluation import films_of_squares as films
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from mixplug.cli.eval import app
from mixplug.data.davis import davis_videos, palette, read_labels, write_labels
from mixplug.evaluation.frozen import davis
from mixplug.evaluation.frozen.davis import DavisResult, evaluate_davis
from mixplug.evaluation.frozen.frozen import Frozen
from mixplug.evaluation.frozen.label_propagation import Protocol

PROTOCOL = Protocol(size=films.HEIGHT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return films.write(
        tmp_path / "DAVIS", {"squares": films.squares(7), "stripes": films.stripes(5)}
    )


def run(root: Path, out: Path, **keys: object) -> DavisResult:
    given = {"frozen": films.network(), "protocol": PROTOCOL, **keys}
    return evaluate_davis(videos=davis_videos(root), out=out, **given)


def test_known_answers(root: Path, tmp_path: Path) -> None:
    """What stands still is exact in region and contour; squares but for their rounded corners."""
    found = run(root, tmp_path / "out")
    first, second, *still = found.objects
    assert [(o.video, o.number) for o in still] == [("stripes", 1), ("stripes", 2)]
    for score in still:
        assert (score.region.mean, score.region.recall, score.region.decay) == (1.0, 1.0, 0.0)
        assert (score.contour.mean, score.contour.recall, score.contour.decay) == (1.0, 1.0, 0.0)
    for score in (first, second):
        assert 0.95 < score.region.mean < 1 and 0.9 < score.contour.mean <= 1
    values = [score.region.mean for score in found.objects]
    assert found.scores.region.mean == pytest.approx(sum(values) / 4)
    assert found.segmented == ("squares", "stripes") and found.frames_per_second > 0
    assert found.peak_bytes is None or found.peak_bytes > 2**20


def test_predictions_are_in_the_official_layout(root: Path, tmp_path: Path) -> None:
    """One PNG with a palette per frame, of its size and its annotation's name; JSON beside."""
    out = tmp_path / "out"
    found = run(root, out)
    for video, count in (("squares", 7), ("stripes", 5)):
        files = sorted((out / video).iterdir())
        assert [f.name for f in files] == [f"{i:05d}.png" for i in range(count)]
        for file in files:
            with Image.open(file) as image:
                assert image.mode == "P" and image.size == (films.WIDTH, films.HEIGHT)
                assert image.getpalette() == palette()
        given = read_labels(root / f"Annotations/480p/{video}/00000.png")
        assert torch.equal(read_labels(files[0]), given)
    assert found.file == out / "davis-val.json"
    read = json.loads(found.file.read_text())
    assert read["J&F"] == pytest.approx((read["J"]["mean"] + read["F"]["mean"]) / 2)
    assert read["J"]["mean"] == pytest.approx(found.scores.region.mean)
    assert read["objects"][3]["video"] == "stripes" and read["objects"][3]["region"]["mean"] == 1
    assert read["settings"]["radius"] == 12 and read["network"] == "a made network"


def test_a_video_whose_predictions_are_there_is_not_run(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(root, out)
    (out / "squares/00003.png").unlink()
    again = run(root, out)
    assert again.segmented == ("squares",) and again.scores == first.scores
    write_labels(out / "stripes/00002.png", torch.zeros(films.HEIGHT, films.WIDTH))
    third = run(root, out, frozen=without_eyes(films.network()))
    assert third.segmented == () and third.frames_per_second is None
    assert third.objects[:2] == first.objects[:2]
    assert third.objects[2].region.mean == pytest.approx(2 / 3)  # scored as they lie there


def test_an_interrupted_run_goes_on(root: Path, tmp_path: Path, monkeypatch) -> None:
    """In the middle of the second video; what it has of that is made again."""
    out, written = tmp_path / "out", []

    def write(path: Path, labels: Tensor) -> None:
        if path.parent.name == "stripes" and path.name == "00002.png":
            raise KeyboardInterrupt
        written.append(path)
        write_labels(path, labels)

    monkeypatch.setattr(davis, "write_labels", write)
    with pytest.raises(KeyboardInterrupt):
        run(root, out)
    assert len(written) == 7 + 2
    monkeypatch.setattr(davis, "write_labels", write_labels)
    found = run(root, out)
    assert found.segmented == ("stripes",)
    assert found.scores == run(root, tmp_path / "at once").scores


def test_predictions_of_another_run_are_not_mixed_in(root: Path, tmp_path: Path) -> None:
    """Whatever the split: another one may list the same videos."""
    out = tmp_path / "out"
    run(root, out)
    for split in ("val", "train"):
        with pytest.raises(ValueError, match=r"another run: topk 5, not 3\. Choose .* --out"):
            run(root, out, protocol=Protocol(films.HEIGHT, topk=3), split=split)
        for change, said in (
            (lambda f: f.encoder.backbone.pos_embed.data.add_(1), r"weights \w+, not \w+"),
            (lambda f: f.encoder.set_heads(2), r"heads 1, not 2"),
        ):
            other = films.network()
            change(other)
            with pytest.raises(ValueError, match=rf"another run: {said}\. Choose another"):
                run(root, out, frozen=other, split=split)
    assert run(root, out, split="train").segmented == ()
    assert (out / "davis-train.json").is_file()


def test_predictions_without_a_record_are_refused(root: Path, tmp_path: Path) -> None:
    """Be they of these videos or of others; without predictions a record binds nobody."""
    out = tmp_path / "out"
    run(root, out)
    record = out / "predictions.json"
    for damage in (lambda: record.write_text("{}"), record.unlink):
        damage()
        with pytest.raises(
            ValueError, match=r"such as squares.00000\.png, but no predictions\.jso"
        ):
            run(root, out)
    shutil.rmtree(out / "squares")
    with pytest.raises(ValueError, match=r"such as stripes.00000\.png, .* --out, or remove that"):
        run(root, out)
    shutil.rmtree(out / "stripes")
    record.write_text('{"settings": {"weights": "others"}}')
    assert run(root, out).segmented == ("squares", "stripes")


def test_progress_counts_frames(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    run(root, tmp_path / "out", tick=lambda *of: seen.append(of))
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[0] == (0, 12, "squares") and seen[-1] == (12, 12, "stripes")
    assert (6, 12, "scoring squares") in seen


def test_void_counts_as_background(tmp_path: Path) -> None:
    """Of the first annotation it is no object, and the network is not told of it."""
    frames, annotations = films.stripes(4)
    annotations = [a.clone() for a in annotations]
    annotations[0][:, 40:48] = 255
    root = films.write(tmp_path / "DAVIS", {"v": (frames, annotations)})
    found = run(root, tmp_path / "out")
    assert [score.region.mean for score in found.objects] == [1.0, 1.0]
    assert read_labels(tmp_path / "out/v/00000.png").unique().tolist() == [0, 1, 2]


def test_videos_that_cannot_be_scored(tmp_path: Path) -> None:
    root = films.write(tmp_path / "short", {"v": films.squares(2)})
    with pytest.raises(ValueError, match=r"v needs at least 3 frames, .* got 2"):
        run(root, tmp_path / "out")
    frames, annotations = films.squares(3)
    empty = [torch.zeros_like(a) for a in annotations]
    root = films.write(tmp_path / "empty", {"v": (frames, empty)})
    with pytest.raises(ValueError, match=r"00000\.png has no object"):
        run(root, tmp_path / "out")


def test_the_command(root: Path, tmp_path: Path) -> None:
    """Its table is what the file says, in percent."""
    checkpoint, out = tmp_path / "a.pth", tmp_path / "out"
    torch.save(films.network().encoder.backbone.state_dict(), checkpoint)
    words = ["davis", root, checkpoint, "--out", out, "--size", films.HEIGHT, "--device", "cpu"]
    found = invoke(*words)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert max(map(len, lines)) <= 100 or all("/" in line for line in lines if len(line) > 100)
    read = json.loads((out / "davis-val.json").read_text())
    (total,) = (line.split() for line in lines if "all objects" in line)
    values = [read["J&F"], *(read[m][k] for m in "JF" for k in ("mean", "recall", "decay"))]
    assert total == ["all", "objects", "4", *(f"{100 * value:.1f}" for value in values)]
    assert any(line.split()[:3] == ["stripes", "2", "100.0"] for line in lines)
    assert "speed: " in found.output and f"json: {out / 'davis-val.json'}" in found.output
    again = invoke(*words)
    assert "2 of 2 videos already had predictions" in again.output
    assert "speed" not in again.output


def test_errors_of_the_command_are_one_line(root: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.pth"
    torch.save(films.network().encoder.backbone.state_dict(), checkpoint)
    for words, message in (
        ((tmp_path, tmp_path / "none.pth"), "mixplug: error: "),
        ((tmp_path / "none", checkpoint), "mixplug: error: There is no file"),
        ((root, checkpoint, "--temperature", 0), "a temperature > 0, got 0.0"),
        ((root, checkpoint, "--split", "test-dev"), "Existing splits: val."),
    ):
        found = invoke("davis", *words, "--out", tmp_path / "out")
        assert found.exit_code == 1 and message in found.output
        assert len(found.output.splitlines()) == 1  # and no bar before it


def without_eyes(frozen: Frozen) -> Frozen:
    """The same weights, and it must not be asked."""

    def tokens(images: Tensor) -> None:
        raise AssertionError("The network was run.")

    frozen.encoder.tokens = tokens
    return frozen


def invoke(*arguments: object) -> object:
    run = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "100"})
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
    return run
