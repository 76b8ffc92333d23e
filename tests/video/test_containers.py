"""Containers and codecs of cameras, phones and dash cams: each read gives the frame shown."""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from video.films import FPS, all_frames, film, packets, pan, scene

from mixplug.video import DecodeError, open_reader, scan
from mixplug.video.pictures import FilePictures
from mixplug.video.program_stream import display_order, interpolated
from mixplug.video.pyav_reader import PyAVReader

COUNT = 100
PAN = functools.partial(pan, 0)
# packets of several frames, of which only the first has a time, and packets of one frame
PROGRAMS: dict[str, dict[str, Any]] = {
    "camcorder.mpg": {"codec": "mpeg2video", "gop": 12, "bframes": 2},
    "small.mpg": {"codec": "mpeg2video", "gop": 12, "bframes": 2, "picture": PAN},
    "no_b.mpg": {"codec": "mpeg2video", "gop": 12, "bframes": 0, "picture": PAN},
    "dvd.vob": {"codec": "mpeg2video", "gop": 15, "bframes": 2},
    "mpeg1.mpg": {"codec": "mpeg1video", "gop": 12, "bframes": 2, "picture": PAN},
}
X265 = {"codec": "libx265", "preset": "ultrafast"}
OPEN = "log-level=none:pools=1:keyint=24:bframes=3:open-gop=1"
CAMERAS: dict[str, dict[str, Any]] = {
    "phone.mov": {**X265, "x265-params": OPEN, "tag": "hvc1"},
    "phone.mp4": {**X265, "x265-params": OPEN},
    "tv.ts": {**X265, "x265-params": OPEN},
    "dash_cam.avi": {"bframes": 0, "gop": 24},
    "dash_cam.ts": {"gop": 24, "open_gop": True},
    "old.avi": {"codec": "mpeg4", "bframes": 2},
    "tour.mkv": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "alternate.mp4": {"codec": "libvpx-vp9", "cpu-used": "5", "lag-in-frames": "16"},
    "tour.webm": {"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"},
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One file of each kind, written on first use."""
    folder = tmp_path_factory.mktemp("containers")

    def one(name: str) -> Path:
        path = folder / name
        settings = {key: v for key, v in (PROGRAMS | CAMERAS)[name].items() if key != "tag"}
        return path if path.exists() else film(path, COUNT, **settings)

    return one


def asked(count: int = COUNT, reads: int = 22) -> list[float]:
    """The times of all frames, backwards at the end, and random ones: 122 reads."""
    order = [*range(count // 2), *range(count - 1, count // 2 - 1, -1)]
    drawn = np.random.default_rng(1).uniform(0, count / FPS - 1e-3, reads)
    return [number / FPS for number in order] + list(drawn)


def decoded(path: Path) -> Tensor:
    """All frames in the order in which the decoder gives them."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_type = "NONE"
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("options", [{}, {"cache_bytes": 1 << 30}, {"threads": 2}], ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_streams(films: Any, name: str, options: dict[str, Any]) -> None:
    """Frame n of 25 per second is shown at n / 25; FFmpeg guesses times, some of them wrongly."""
    path = films(name)
    frames = decoded(path)
    assert len(frames) == COUNT
    with open_reader(path, **options) as reader:
        assert (reader.duration, reader.fps) == (COUNT / FPS, FPS)
        for time in asked():
            number = int(time * FPS + 1e-6)
            assert torch.equal(reader.read([time])[0], frames[number]), time
        assert reader.skipped == 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_scan_of_a_program_stream_finds_no_damage(films: Any, tmp_path: Path, name: str) -> None:
    index = scan(films(name), path=tmp_path / "i.json")
    assert (index.frames, index.duration, index.fps, index.bad) == (COUNT, COUNT / FPS, FPS, ())
    # the first group of the encoder is shorter, because its B-frames come before the keyframe
    gop = PROGRAMS[name]["gop"]
    assert index.keyframes[:3] == (0.0, gop / FPS, 2 * gop / FPS)
    reader = open_reader(films(name), keyframes=index.keyframes)
    assert torch.equal(reader.read([3.0])[0], decoded(films(name))[75])


def test_the_order_of_display_by_hand() -> None:
    # I P B B P B I in decoding order is I B B P B P I
    waits = [True, True, False, False, True, False, True]
    assert display_order(waits) == [0, 2, 3, 1, 5, 4, 6]
    assert display_order([True, True, True]) == [0, 1, 2]
    assert display_order([]) == []
    assert interpolated([None, 100, None, None, 160, None], 20.0) == [80, 100, 120, 140, 160, 180]
    assert interpolated([0, None, None, 90], 20.0) == [0, 30, 60, 90]  # the stated times win
    assert interpolated([100, 120, 110, 160], 20.0) == [100, 120, 140, 160]  # an error
    assert interpolated([1000, None, 5, None], 20.0) == [1000, 1020, 1040, 1060]  # joined files
    assert interpolated([None, None], 20.0) == [0, 20]


@pytest.mark.parametrize("name", CAMERAS)
def test_files_of_cameras(films: Any, tmp_path: Path, name: str) -> None:
    codec = CAMERAS[name].get("codec", "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = films(name)
    times, frames = all_frames(path)
    with open_reader(path) as reader:
        for time in [
            *np.random.default_rng(1).uniform(0, 3.9, 25),
            *times[40:60],
            *times[30:20:-1],
        ]:
            number = max(0, np.searchsorted(times, time + 1e-7, "right") - 1)
            assert torch.equal(reader.read([time])[0], frames[number]), time
        assert reader.skipped == 0
        index = scan(path, path=tmp_path / "i.json")
        assert index.bad == () and index.frames == COUNT
        assert index.duration == reader.duration  # clips within the index can be read


def motion_jpeg(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 80, 112, "yuvj420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(scene(0, number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["avi", "mov"])
def test_motion_jpeg(tmp_path: Path, suffix: str) -> None:
    path = motion_jpeg(tmp_path / f"camera.{suffix}")
    frames = decoded(path)
    reader = open_reader(path)
    for number in (29, 3, 17, 4, 0):
        assert torch.equal(reader.read([number / FPS])[0], frames[number])


def converted(path: Path, message: str) -> Path:
    """Follow the advice in a message, by FFmpeg's program if there is one."""
    command = shlex.split(message[message.index("ffmpeg -i") :])
    assert command[2] == str(path) and not Path(command[-1]).exists()
    assert command[3:-1] == ["-map", "0:v:0", "-c:v", "libx264", "-crf", "14"]
    if shutil.which("ffmpeg"):
        subprocess.run([*command[:1], "-v", "error", *command[1:]], check=True)
        return Path(command[-1])
    frames = decoded(path).permute(0, 2, 3, 1).numpy()  # FFmpeg gives such frames regular times
    return film(Path(command[-1]), len(frames), frames.__getitem__, crf="14")


@pytest.mark.parametrize("name", ["b frames.avi", "h264.mpg", "raw.h264", "raw.hevc", "raw.m2v"])
def test_files_without_times_are_refused_with_advice_that_works(tmp_path: Path, name: str) -> None:
    """Their frames are intact. Copying the packets, as `-c copy` does, would copy the lack."""
    path = tmp_path / name
    kinds = {
        "raw.hevc": {**X265, "x265-params": OPEN},
        "raw.m2v": {"codec": "mpeg2video", "bframes": 2},
    }
    film(path, 50, gop=24, **kinds.get(name, {}))
    with pytest.raises(ValueError) as caught:
        open_reader(path)
    cause = {
        "b frames.avi": "states times in another order than that in which its frames are shown",
        "h264.mpg": "is a program stream, which states the times of some frames only",
    }.get(name, "does not state its duration")
    assert cause in str(caught.value) and "damage" not in str(caught.value)
    with pytest.raises(ValueError, match=cause):
        scan(path)
    frames = decoded(path)
    target = converted(path, str(caught.value))
    reader = open_reader(target)
    assert reader.duration == 50 / FPS and scan(target).bad == ()
    for number in (0, 1, 2, 3, 30, 7, 49, 25):
        difference = (reader.read([number / FPS])[0].int() - frames[number].int()).abs()
        assert difference.float().mean() < 10, number  # other frames differ by 80


def test_times_that_lose_their_order_later(tmp_path: Path) -> None:
    """A file that was edited by copying packets: right up to frame 50, then pts = dts."""
    whole, path = film(tmp_path / "whole.mp4", COUNT, gop=25), tmp_path / "edited.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                if number >= 50:
                    packet.pts = packet.dts + round(Fraction(2, FPS) / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    frames = decoded(whole)
    reader = open_reader(path)
    for number in (30, 3, 44, 45):
        assert torch.equal(reader.read([number / FPS])[0], frames[number])
    with pytest.raises(DecodeError, match="states times in another order") as caught:
        for number in range(50, 75):
            reader.read([number / FPS])
    assert "damaged" not in str(caught.value)
    assert torch.equal(reader.read([30 / FPS])[0], frames[30])
    with pytest.raises(ValueError, match="states times in another order"):
        scan(path)


def test_two_frames_with_one_time_are_bad_in_the_index(tmp_path: Path) -> None:
    """FFmpeg makes such files of program streams by `-fflags +genpts -c copy`."""
    whole, path = film(tmp_path / "whole.mp4", COUNT, gop=25), tmp_path / "copied.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                if packet.pts * packet.time_base == Fraction(32, FPS):
                    packet.pts -= round(Fraction(1, FPS) / packet.time_base)  # that of frame 31
                packet.stream = stream
                target.mux(packet)
    frames = decoded(whole)
    index = scan(path)
    ((start, end, _),) = index.bad
    assert 1.0 <= start <= 31 / FPS and end == 2.0
    reader = open_reader(path)
    for number in [*range(99, 0, -4), 24, 50]:
        if not start <= number / FPS < end:
            assert torch.equal(reader.read([number / FPS])[0], frames[number]), number


def joined(folder: Path) -> Path:
    """A transport stream whose picture becomes larger after two seconds, as broadcasts do."""
    first = film(folder / "a.ts", 50, gop=25)
    larger = functools.partial(scene, 0, height=96, width=128)
    second = film(
        folder / "b.ts", 50, larger, gop=25, milliseconds=[2120 + 40 * n for n in range(50)]
    )
    path = folder / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def test_frames_of_another_size_are_an_error_and_bad_in_the_index(tmp_path: Path) -> None:
    path = joined(tmp_path)
    frames = decoded(tmp_path / "a.ts")
    reader = open_reader(path)
    assert torch.equal(reader.read([1.0, 1.76]), frames[[25, 44]])
    for crop in (None, (0, 0, 10, 10)):
        with pytest.raises(DecodeError, match="96 x 128 pixels, but the first frame has 80 x 112"):
            reader.read([3.0], crop)
    assert torch.equal(reader.read([0.4])[0], frames[10])
    index = scan(path)
    (bad,) = index.bad
    # the last packet before the join is marked as corrupt, because its successor is missing
    assert 1.76 < bad[0] < 2.05 and bad[1:] == (index.duration, "corrupt")


@pytest.mark.parametrize("error", [RuntimeError("no memory"), OSError(5, "I/O"), ValueError("odd")])
def test_whatever_the_decoder_raises_is_a_decode_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """PyAV raises errors of Python too. No file provokes them reliably, so they are injected."""
    path = film(tmp_path / "f.mp4", 50, gop=25)
    frames = decoded(path)
    reader = open_reader(path)
    assert isinstance(reader, PyAVReader)

    class Broken:
        """A codec that fails at the packet of frame 30."""

        def __init__(self, codec: Any) -> None:
            self._codec = codec

        def __getattr__(self, name: str) -> Any:
            return getattr(self._codec, name)

        def decode(self, packet: Any) -> Any:
            if packet is not None and packet.pts * packet.time_base == Fraction(30, FPS):
                raise error
            return self._codec.decode(packet)

    run = reader._get_source().decoder._run
    run.codec = Broken(run.codec)
    with pytest.raises(DecodeError, match=r"1\.200 s cannot be decoded"):
        reader.read([1.2])
    assert reader.skipped >= 1
    assert torch.equal(reader.read([0.4])[0], frames[10])

    real = FilePictures._frames

    def failing(self: Any, packet: Any) -> Any:
        self._codec = self._codec if isinstance(self._codec, Broken) else Broken(self._codec)
        return real(self, packet)

    monkeypatch.setattr(FilePictures, "_frames", failing)
    index = scan(path, threads=1)
    assert [reason for _, _, reason in index.bad] == ["corrupt"]
    assert index.bad[0][0] <= 1.2 < index.bad[0][1]


MATRICES = {"bt709": (0.2126, 0.0722, 1), "bt601": (0.299, 0.114, 6), "bt2020": (0.2627, 0.0593, 9)}


def colored(path: Path, matrix: str, full: bool) -> Tensor:
    """A lossless file of 16 colors, converted to Y'CbCr by hand; returns the colors."""
    red, blue, number = MATRICES[matrix]
    colors = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(float)
    r, g, b = np.moveaxis(colors.repeat(20, 0).repeat(28, 1), -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)]
    scaled = [y, *(128 + c for c in chroma)] if full else [
        16 + y * 219 / 255, *(128 + c * 224 / 255 for c in chroma)
    ]  # fmt: skip
    levels = np.stack(scaled).round().clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"qp": "0", "preset": "ultrafast"}
        )
        stream.height, stream.width, stream.pix_fmt = 80, 112, "yuv444p"
        frame = av.VideoFrame.from_ndarray(levels, format="yuv444p")
        for one in (stream.codec_context, frame):
            one.colorspace, one.color_range = number, 2 if full else 1
        frame.pts, frame.time_base = 0, Fraction(1, FPS)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return torch.from_numpy(np.stack([r, g, b]))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colors(tmp_path: Path, matrix: str, full: bool) -> None:
    """PyAV below 17 took every matrix for BT.601, which is wrong by up to 36 of 255."""
    path = tmp_path / "f.mp4"
    colors = colored(path, matrix, full)
    reader = open_reader(path)
    assert (reader.read([0.0])[0] - colors).abs().max() <= 1
    part = reader.read([0.0], (3, 5, 40, 50))[0]
    assert (part - colors[:, 3:43, 5:55]).abs().max() <= 1


TORCHCODEC = """
import sys
from pathlib import Path
import numpy as np
import torch
from video.films import all_frames
from mixplug.video import open_reader
for name in sys.argv[1:]:
    times, frames = all_frames(Path(name))
    reader = open_reader(name, "torchcodec")
    last = min(times[-1], reader.duration) - 1e-3
    asked = [[t] for t in np.random.default_rng(0).uniform(0, last, 40)]
    asked += [times[5:40:7], times[::-20]]
    for times_ in asked:
        numbers = [int(np.searchsorted(times, t + 1e-7, "right")) - 1 for t in times_]
        found = reader.read(times_)
        assert (found.int() - frames[numbers].int()).abs().max() <= 3, (name, times_)
    print("by PyAV" if reader._pyav else "alone")
"""


@pytest.mark.skipif(not importlib.util.find_spec("torchcodec"), reason="needs torchcodec")
def test_torchcodec_gives_the_frame_that_was_asked_for(films: Any, tmp_path: Path) -> None:
    """In a process of its own, with FFmpeg's libraries of PyAV under the names of the system."""
    inside = Path(av.__file__).parents[1] / "av.libs"
    for file in inside.glob("lib[as][vw]*.so.*"):
        name, version = file.name.split("-")[0], file.name.split(".so.")[1].split(".")[0]
        (tmp_path / f"{name}.so.{version}").symlink_to(file)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    names = [str(films("dash_cam.ts")), str(film(tmp_path / "f.mp4", COUNT))]
    done = subprocess.run(
        [sys.executable, "-c", TORCHCODEC, *names],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "FFmpeg's libraries on the system" in done.stderr:
        pytest.skip("torchcodec supports another version of FFmpeg than that of PyAV")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:2] == ["by PyAV", "alone"]


def test_torchcodec_refuses_program_streams(films: Any) -> None:
    pytest.importorskip("torchcodec")
    with pytest.raises(ValueError, match=r"is a program stream.*Use backend='pyav'"):
        open_reader(films("camcorder.mpg"), "torchcodec")


def test_h264_without_times_has_the_packets_that_the_tests_assume(tmp_path: Path) -> None:
    """Otherwise the refusals above would test nothing."""
    assert {p.pts for p in packets(film(tmp_path / "raw.h264", 10))} == {None}


def test_a_title_that_is_not_utf_8(tmp_path: Path) -> None:
    """Cameras write names of makers in any code; the pictures have nothing to do with it."""
    raw = film(tmp_path / "film.mp4", 6).read_bytes()
    times, frames = all_frames(tmp_path / "film.mp4")
    maker = b"Lavf"  # FFmpeg names itself in the file
    assert raw.count(maker) == 1
    (tmp_path / "film.mp4").write_bytes(raw.replace(maker, b"\xff\xfe\xe9\xe9"))
    with open_reader(tmp_path / "film.mp4") as reader:
        assert torch.equal(reader.read([time + 1e-3 for time in times]), frames)
