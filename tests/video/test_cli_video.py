"""``mixplug video``, on files."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result
from video.films import damage_file, film, pan, scene, shipped

from mixplug.cli.video import app
from mixplug.data.walking_tours import TOURS
from mixplug.video import VideoIndex


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "100"})


def test_index_writes_json_and_png_and_prints_a_summary(tmp_path: Path) -> None:
    path = Path(shutil.copy(shipped("bikes.mp4"), tmp_path))
    run = invoke("index", path)
    assert run.exit_code == 0, run.output
    printed = run.output.replace("\n", " ")
    assert "bikes.mp4: 640 × 272, 25 frames per second, 0:00:10, 5 cuts, 100.0% usable" in printed
    index = VideoIndex.of(path)
    assert len(index.cuts) == 5
    picture = tmp_path / "bikes.mp4.lightness.png"
    assert str(picture) in run.output and str(VideoIndex.path_of(path)) in run.output
    with Image.open(picture) as image:
        assert image.width > image.height > 200
    picture.unlink()
    before = VideoIndex.path_of(path).stat().st_mtime_ns
    assert invoke("index", path, "--no-figure").exit_code == 0
    assert VideoIndex.path_of(path).stat().st_mtime_ns == before and not picture.exists()
    assert invoke("index", path, "--force", "--no-figure").exit_code == 0
    assert VideoIndex.path_of(path).stat().st_mtime_ns > before


def test_folders_of_videos_and_of_frames(tmp_path: Path) -> None:
    videos, frames = tmp_path / "videos", tmp_path / "frames"
    videos.mkdir()
    frames.mkdir()
    path = film(tmp_path / "f.mp4", 60, lambda n: pan(n >= 30, n))
    for name in ("b.mp4", "a.mkv"):
        shutil.copy(path, videos / name)
    damage_file(path, videos / "c.mp4", range(30, 40), "zeros")
    for number in range(8):
        Image.fromarray(scene(0, number)).save(frames / f"{number}.jpg")
    run = invoke("index", videos, frames, "--fps", 4, "--detector", "content")
    assert run.exit_code == 0, run.output
    assert [VideoIndex.of(videos / name).cuts for name in ("a.mkv", "b.mp4")] == [(1.2,), (1.2,)]
    assert VideoIndex.of(frames).duration == 2.0
    names = re.findall(r"^(\S+): \d+ ×", run.output, re.M)
    assert names == ["a.mkv", "b.mp4", "c.mp4", "frames"]
    assert re.search(r"corrupt: 0:00:0\d-0:00:02", run.output)


def test_one_file_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("hello " * 1000)
    film(tmp_path / "b.mp4", 30)
    run = invoke("index", tmp_path)
    assert run.exit_code == 1
    assert "mixplug: error: " in run.output and "a.mp4 cannot be opened" in run.output
    assert VideoIndex.of(tmp_path / "b.mp4").complete
    for arguments, message in (
        ((tmp_path / "none.mp4",), "There is no file or folder"),
        ((tmp_path / "b.mp4", "--detector", "best"), "got 'best'"),
    ):
        run = invoke("index", *arguments)
        assert run.exit_code == 1 and message in run.output and "Traceback" not in run.output


def test_ctrl_c_and_resume(tmp_path: Path) -> None:
    """In a terminal, where the progress bar shows that the scan has started."""
    path = film(tmp_path / "f.mp4", 2500, lambda n: pan(n // 100 % 7, n % 300), gop=50)
    code = "from mixplug.cli.video import app; app()"
    command = [sys.executable, "-c", code, "index", str(path), "--threads", "1"]
    screen, terminal = pty.openpty()
    # children of a shell in the background may ignore the signal
    run = subprocess.Popen(command, stderr=terminal, preexec_fn=_handle_sigint)
    os.close(terminal)
    output = ""
    while more := _read_screen(screen):
        output += more
        if "scanning frames" in output:
            run.send_signal(signal.SIGINT)
            break
    while more := _read_screen(screen):
        output += more
    assert run.wait(60) == 130, output
    assert "Run the command again to resume" in output and "Traceback" not in output
    assert not VideoIndex.load(VideoIndex.path_of(path)).complete
    again = invoke("index", path)
    assert again.exit_code == 0 and VideoIndex.of(path).complete
    assert len(VideoIndex.of(path).cuts) == 24


def _handle_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _read_screen(screen: int) -> str:
    """The next output of a terminal; empty if it was closed."""
    if not select.select([screen], [], [], 60)[0]:
        return ""
    try:
        return os.read(screen, 1 << 16).decode(errors="replace")
    except OSError:  # raised when no process writes to the terminal any more
        return ""


def test_check_compares_with_the_table(tmp_path: Path) -> None:
    path = film(tmp_path / "walk.mp4", 30)
    run = invoke("check", "venice", path)
    assert run.exit_code == 1 and f"mixplug video index {path}" in run.output.replace("\n", "")
    assert invoke("index", path).exit_code == 0
    run = invoke("check", "venice", path)
    assert run.exit_code == 1
    assert re.search(r"usable +90.0 minutes +0.0 of 0.0 minutes +wrong", run.output)
    assert re.search(r"resolution +3840 x 2160 +112 x 80 +note", run.output)
    assert "The authors' videos: https://shashankvkt.github.io/dora (CC-BY)" in run.output
    run = invoke("check", "Venise", path)
    assert run.exit_code == 1 and "Did you mean 'venice'?" in run.output


def test_the_help_names_all_tours() -> None:
    words = re.split(r"[\s,.│]+", invoke("check", "--help").output)
    assert set(TOURS) <= set(words)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mixplug.cli.video import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.strip().rpartition("\n")[2]
    assert not [name for name in ("torch", "numpy", "av", "matplotlib") if f"'{name}'" in loaded]


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "f.mp4").touch()
    run = invoke("index", tmp_path / "f.mp4")
    assert run.exit_code == 1 and "uv sync --inexact --extra video" in run.output
