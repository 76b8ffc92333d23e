"""Clips: their position, their content, and the handling of clips that cannot be decoded.

In the folders of frames, colors encode the number of the frame and the position of the pixel.
Statistical bounds are five standard errors.
"""

from __future__ import annotations

import itertools
import math
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filming import film, frames_folder, numbers, save_index, spoil
from torch import Tensor
from torch.utils.data import DataLoader

from mixplug import sampling
from mixplug.data.clip_samplers import ClipSampler, generators
from mixplug.data.clips import Place, VideoClips
from mixplug.data.multicrop import MultiCrop
from mixplug.data.open_readers import OpenReaders, Request, _overlapping
from mixplug.data.shipped import shipped_clip
from mixplug.data.videos import find_videos
from mixplug.video import VideoIndex

FPS, COUNT = 10.0, 100
VIEWS = {"large": 8, "small": 6, "smalls": 2}
SMALL = {"frames": 4, "interval": 0.5, "crop": 16, "views": VIEWS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds without cuts."""
    path = frames_folder(tmp_path_factory.mktemp("videos") / "tour", COUNT)
    save_index(path, FPS, COUNT)
    return path


@pytest.fixture
def cut(folder: Path) -> Iterator[Path]:
    """The same folder with cuts at 2.5 and 6 s, blank from 3 to 4 s and damaged from 8 to 8.2 s."""
    bad = [(3.0, 4.0, "blank"), (8.0, 8.2, "corrupt")]
    save_index(folder, FPS, COUNT, cuts=(2.5, 6.0), bad=bad)
    yield folder
    save_index(folder, FPS, COUNT)


def clips(video: object, **settings: object) -> VideoClips:
    return VideoClips(video, **{**SMALL, **settings})


def frame_numbers(clip: Tensor) -> list[int]:
    """The number of each frame of a clip; it is the same in all pixels of the frame."""
    assert torch.equal(clip[:, 0], clip[:, 0, :1, :1].expand_as(clip[:, 0]))
    return clip[:, 0, 0, 0].tolist()


def rate(hits: int, n: int, p: float) -> None:
    assert abs(hits - n * p) <= 5 * math.sqrt(n * p * (1 - p))


def places(data: VideoClips, n: int = 1500) -> list[Place]:
    return [data.place(*divmod(i, len(data))) for i in range(n)]


# ---------------------------------------------------------------- content of a clip


def test_a_clip_has_the_frames_and_the_crop_of_its_place(folder: Path) -> None:
    data = clips(folder)
    for place in places(data, 40):
        clip = data.clip(place)
        assert clip.shape == (4, 3, 16, 16) and clip.dtype == torch.uint8
        assert frame_numbers(clip) == [math.floor((place.start + 0.5 * t) * FPS) for t in range(4)]
        top, left = place.corner
        for t in range(4):
            assert clip[t, 1, :, 0].tolist() == list(range(top, top + 16))
            assert clip[t, 2, 0].tolist() == list(range(left, left + 16))


def test_an_item_has_the_views_of_the_clip(folder: Path) -> None:
    data = clips(folder, views=MultiCrop(**VIEWS))
    for epoch, index in ((0, 0), (0, 7), (3, 2)):
        place = data.place(epoch, index)
        item, expected = data[epoch * len(data) + index], data.views(data.clip(place), place.key)
        assert item["large"].shape == (2, 4, 3, 8, 8) and item["small"].shape == (2, 4, 3, 6, 6)
        assert all(torch.equal(item[name], expected[name]) for name in expected)
    assert len({place.key for place in places(data, 200)}) == 200


def test_whole_frames(folder: Path) -> None:
    data = clips(folder, crop=None)
    place = data.place(0, 0)
    assert place.corner is None and data.clip(place).shape == (4, 3, 40, 50)


def test_single_frames(folder: Path) -> None:
    """With T = 1 the interval has no effect: any frame of the video can be drawn."""
    data = clips(folder, frames=1, interval=1000.0)
    frames = Counter(math.floor(place.start * FPS) for place in places(data, 3000))
    assert frames.keys() == set(range(COUNT)) and data.reach == 0


def test_defaults_of_the_thesis(tmp_path: Path) -> None:
    """6.5.2: eight frames, one second apart, 300 x 300 pixels; two global and six local crops."""
    path = frames_folder(tmp_path / "large", 90, 300, 310)
    save_index(path, 10, 90, (300, 310))
    data = VideoClips(path)
    assert len(data) == 90 // 8
    item = data[0]
    assert item["large"].shape == (2, 8, 3, 224, 224) and item["small"].shape == (6, 8, 3, 96, 96)
    place = data.place(0, 0)
    frames = data.clip(place)[:, 0, 0, 0].tolist()
    assert [b - a for a, b in itertools.pairwise(frames)] == [10] * 7


# ---------------------------------------------------------------- position of a clip


def test_starts_and_crops_are_uniform(folder: Path) -> None:
    """A 1.5 s clip in 10 s starts before 8.5 s; a crop of 16 in 40 x 50 has 25 x 35 positions."""
    data = clips(folder)
    found = places(data, 3000)
    assert all(0 <= p.start < 8.5 for p in found)
    for tenth in range(10):
        rate(sum(tenth <= p.start / 0.85 < tenth + 1 for p in found), 3000, 0.1)
    assert {p.corner[0] for p in found} == set(range(25))
    assert {p.corner[1] for p in found} == set(range(35))
    for top in range(25):
        rate(sum(p.corner[0] == top for p in found), 3000, 1 / 25)
    rate(sum(p.corner[0] < 12 and p.corner[1] < 17 for p in found), 3000, 12 / 25 * 17 / 35)
    rate(sum(p.start < 4.25 and p.corner[0] < 12 for p in found), 3000, 0.5 * 12 / 25)


def test_clips_avoid_cuts_and_bad_parts(cut: Path) -> None:
    """Spans: 0-2.5, 2.5-3, 4-6, 6-8, 8.2-10; room for starts: 1, 0, 0.5, 0.5 and 0.3 s."""
    data = clips(cut)
    spans = [(0, 2.5), (4, 6), (6, 8), (8.2, 10)]
    hits: Counter[tuple[float, float]] = Counter()
    for place in places(data, 2000):
        (span,) = [s for s in spans if s[0] <= place.start and place.start + 1.5 < s[1]]
        hits[span] += 1
    for span in spans:
        rate(hits[span], 2000, (span[1] - span[0] - 1.5) / 2.3)
    for place in places(data, 60):
        frames = frame_numbers(data.clip(place))
        assert any(10 * a <= frames[0] and frames[-1] < 10 * b for a, b in spans)


@pytest.mark.parametrize(
    ("options", "spans"),
    [
        ({"across_cuts": True}, [(0, 3), (4, 8), (8.2, 10)]),
        ({"blanks": True}, [(0, 2.5), (2.5, 6), (6, 8), (8.2, 10)]),
        ({"across_cuts": True, "blanks": True}, [(0, 8), (8.2, 10)]),
    ],
)
def test_options_allow_cuts_and_blanks(
    cut: Path, options: dict, spans: list[tuple[float, float]]
) -> None:
    """Damaged parts are never used."""
    data = clips(cut, **options)
    room = sum(b - a - 1.5 for a, b in spans)
    found = places(data)
    for a, b in spans:
        rate(sum(a <= p.start and p.start + 1.5 < b for p in found), 1500, (b - a - 1.5) / room)
    assert sum(a <= p.start and p.start + 1.5 < b for p in found for a, b in spans) == 1500


def test_rounding_does_not_reach_a_cut(tmp_path: Path) -> None:
    """A clip fits between the cuts, but its last frame would be 4 ns before a cut: too close."""
    path = frames_folder(tmp_path / "tight", 40)
    save_index(path, FPS, 40, cuts=(0.3, 0.7))
    data = clips(path, frames=5, interval=0.1 - 2e-9)
    assert [round(first, 9) for _, first, _ in data.starts] == [0.7]
    assert 3.6 - 2e-6 < data.starts[0][2] < 3.6


def test_without_an_index_the_whole_video_is_used(tmp_path: Path) -> None:
    path = frames_folder(tmp_path / "plain", 30)
    data = clips(path, index="ignore", fps=15)
    assert data.reach == 1.5 and len(data) == 30 // 4
    assert all(0 <= p.start < 0.5 for p in places(data, 100))
    place = data.place(0, 0)
    assert frame_numbers(data.clip(place)) == [
        math.floor((place.start + 0.5 * t) * 15) for t in range(4)
    ]


def test_a_missing_index_is_built(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 60)
    data = clips(path, index="build")
    assert VideoIndex.path_of(path).exists()
    assert data.starts == clips(path).starts
    before = VideoIndex.path_of(path).stat().st_mtime_ns
    clips(path, index="build")
    assert VideoIndex.path_of(path).stat().st_mtime_ns == before


def test_longer_videos_are_drawn_more_often(tmp_path: Path) -> None:
    """Starts have room of 0.5 s and 3.5 s, so the longer video gets seven eighths."""
    short, long = (frames_folder(tmp_path / n, c) for n, c in (("a", 20), ("b", 50)))
    for path, count in ((short, 20), (long, 50)):
        save_index(path, FPS, count)
    data = clips([short, long])
    assert len(data) == 70 // 4 and list(data.videos) == [short, long]
    found = places(data)
    rate(sum(p.path == long for p in found), 1500, 7 / 8)
    for place in found[:30]:
        assert frame_numbers(data.clip(place))[0] == math.floor(place.start * FPS)


def test_videos_without_room_are_skipped_with_a_warning(tmp_path: Path) -> None:
    short, long = (frames_folder(tmp_path / n, c) for n, c in (("a", 10), ("b", 50)))
    for path, count in ((short, 10), (long, 50)):
        save_index(path, FPS, count)
    with pytest.warns(UserWarning, match=r"1 of 2 videos are not used. The first: \S+a lasts 1 s"):
        data = clips([short, long])
    assert list(data.videos) == [long] and {p.path for p in places(data, 50)} == {long}


def test_find_videos(tmp_path: Path) -> None:
    for name in ("b/two.MP4", "one.mkv", "notes.txt", "b/.hidden.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    both = [tmp_path / "b/two.MP4", tmp_path / "one.mkv"]
    assert find_videos(tmp_path) == both
    assert find_videos([tmp_path / "one.mkv", str(tmp_path / "b")]) == both[::-1]
    frames = frames_folder(tmp_path / "frames", 2)
    assert find_videos(str(frames)) == [frames]
    assert find_videos("shipped:bikes") == [shipped_clip("bikes")]
    (tmp_path / "empty").mkdir()
    for wrong, text in (
        ("shipped:cars", r"name must be one of bikes, .*; got 'cars'"),
        (tmp_path / "none.mp4", r"There is no file or folder \S+none\.mp4\."),
        (tmp_path / "empty", r"empty has neither videos \(\.mp4, .*\) nor frames"),
        ([], r"VideoClips needs at least one video, got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            find_videos(wrong)


# ---------------------------------------------------------------- epochs, seeds and workers


def test_the_length_of_an_epoch(cut: Path) -> None:
    """The spans with room for a clip last 2.5, 2, 2 and 1.8 s; or frames_per_epoch is given."""
    assert len(clips(cut)) == 83 // 4
    assert len(clips(cut, frames_per_epoch=1000)) == 250
    assert len(clips(cut, frames_per_epoch=4)) == 1
    with pytest.raises(ValueError, match=r"frames_per_epoch must be at least frames=4, got 3\."):
        clips(cut, frames_per_epoch=3)


def test_draws_depend_on_seed_epoch_and_index_alone(folder: Path) -> None:
    torch.manual_seed(1)
    data = clips(folder, seed=4)
    first, item = data.place(2, 3), data[2 * len(data) + 3]
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again = clips(folder, seed=4)
    for key in (0, 5, len(again)):
        again[key]
    assert again.place(2, 3) == first
    assert torch.equal(again[2 * len(data) + 3]["large"], item["large"])
    torch.manual_seed(1)
    clips(folder)[0]
    assert torch.equal(torch.get_rng_state(), state)
    others = [data.place(2, 4), data.place(3, 3), data.place(2, 3, 1), clips(folder).place(2, 3)]
    others.append(clips(folder, seed=5).place(2, 3))
    assert len({p.start for p in others} | {first.start}) == 6


def test_draws_equal_a_computation_by_hand(folder: Path) -> None:
    data = clips(folder, seed=4)
    source = sampling.generators(sampling.key(generators(4, 2, 3).local), 1).local
    drawn = torch.rand(5, generator=source).double().tolist()
    place = data.place(2, 3, attempt=1)
    assert place.start == pytest.approx((drawn[0] + drawn[1] / 2**24) * 8.5, abs=1e-5)
    assert place.corner == (int(drawn[3] * 25), int(drawn[4] * 35))


def test_iterating_ends_with_the_epoch(folder: Path) -> None:
    data = clips(folder, frames_per_epoch=12)
    items = list(data)
    assert len(items) == 3
    assert all(torch.equal(items[i]["large"], data[i]["large"]) for i in range(3))
    with pytest.raises(IndexError, match=r"Keys are epoch \* 3 \+ index >= 0, got -1\."):
        data[-1]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_items_as_one_process(tmp_path: Path, context: str) -> None:
    """Persistent workers, with a reader that was opened before the fork."""
    path = film(tmp_path / "film.mp4", 60)
    data = clips(path, index="ignore", frames_per_epoch=32)
    data[0]
    sampler = ClipSampler(data, 1)
    loader = DataLoader(
        data, 2, sampler=sampler, num_workers=2 if context == "fork" else 1,
        persistent_workers=True, multiprocessing_context=context,
    )  # fmt: skip
    for epoch in range(2):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        items = [data[key]["large"] for key in keys]
        assert torch.equal(torch.cat([batch["large"] for batch in loader]), torch.stack(items))


def test_pickling_drops_open_readers(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 60)
    data = clips(path, index="ignore")
    item = data[3]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[3]["large"], item["large"])


def test_few_readers_stay_open(tmp_path: Path) -> None:
    paths = [frames_folder(tmp_path / str(n), 2, 4, 4) for n in range(20)]
    readers = OpenReaders({path: save_index(path, 1, 2, (4, 4)) for path in paths})
    for path in paths:
        readers[path].read([0.0])
    assert len(readers) == 16
    assert readers[paths[-1]] is readers[paths[-1]]
    first = readers[paths[4]]  # the oldest of the open readers
    readers[paths[0]]  # replaces another reader
    assert readers[paths[4]] is first and len(readers) == 16
    readers.close()
    assert len(readers) == 0 and readers[paths[2]].read([1.0]).shape == (1, 3, 4, 4)


# ---------------------------------------------------------------- groups


def test_clips_of_a_group_are_close_and_each_is_uniform(cut: Path) -> None:
    data = clips(cut, group=4, frames_per_epoch=4 * 4 * 40)
    spans = [(0, 2.5), (4, 6), (6, 8), (8.2, 10)]
    hits: Counter[tuple[float, float]] = Counter()
    halves: Counter[tuple[float, float]] = Counter()
    for epoch in range(15):
        for first in range(0, len(data), 4):
            starts = [data.place(epoch, first + k).start for k in range(4)]
            owners = [next(s for s in spans if s[0] <= t and t + 1.5 < s[1]) for t in starts]
            assert len(set(owners)) == 1 and len(set(starts)) == 4
            assert max(starts) - min(starts) <= 1.0
            for start, span in zip(starts[1:2], owners[1:2], strict=True):  # one of each group
                hits[span] += 1
                halves[span] += start < span[0] + (span[1] - span[0] - 1.5) / 2
    total = sum(hits.values())
    assert total == 600
    for span in spans:
        rate(hits[span], total, (span[1] - span[0] - 1.5) / 2.3)
        rate(halves[span], hits[span], 0.5)


def test_clips_of_a_group_are_close_but_differ(folder: Path) -> None:
    """Starts vary over 8.5 s, so clips of one group are closer than clips of two groups."""
    data = clips(folder, group=2, frames_per_epoch=4 * 400)
    pairs = [(data.place(0, i).start, data.place(0, i + 1).start) for i in range(0, 400, 2)]
    assert all(abs(a - b) <= 1.0 for a, b in pairs)
    gaps = [abs(pairs[i][0] - pairs[i + 1][0]) for i in range(199)]
    assert sum(gap > 1 for gap in gaps) > 100
    corners = {data.place(0, i).corner for i in range(2)}
    assert len(corners) == 2


@pytest.mark.parametrize("cache_bytes", [0, 50_000_000])
def test_a_batch_equals_its_items_read_one_by_one(tmp_path: Path, cache_bytes: int) -> None:
    """For keys in any order, several videos, and clips that overlap or do not."""
    path, other = film(tmp_path / "film.mp4", 200, gop=50), film(tmp_path / "other.mp4", 100)
    given = {"index": "ignore", "group": 4, "crop": None, "frames_per_epoch": 4 * 32}
    data = clips([path, other], cache_bytes=cache_bytes, **given)
    places = [data.place(0, index) for index in (9, 0, 31, 1, 2, 17, 3, 3)]
    for place, clip in zip(places, data.read(places), strict=True):
        assert torch.equal(clip, data.clip(place))
        assert numbers(clip) == [math.floor((place.start + 0.5 * t) * 10) for t in range(4)]
    keys = [9, 0, 63, 1, 2, 17]
    for item, key in zip(data.__getitems__(keys), keys, strict=True):
        assert all(torch.equal(item[name], one) for name, one in data[key].items())


def test_overlapping_clips_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    """So the decoder never seeks back. The reader's calls are recorded, not replaced."""
    path = film(tmp_path / "film.mp4", 100, gop=100)
    data = clips(path, index="ignore", frames=3, interval=1.0, crop=None)
    places = [Place(path, start, None, 0) for start in (6.05, 4.55, 5.25)]
    reader, asked = data._readers[path], []
    plain = reader.read

    def read(times: list[float], crop: object = None) -> Tensor:
        asked.extend(times)
        return plain(times, crop)

    reader.read = read
    assert [numbers(clip)[0] for clip in data.read(places)] == [60, 45, 52]
    assert len(asked) == 9 and asked == sorted(asked)


def test_overlapping_requests_are_found() -> None:
    a, b = Path("a"), Path("b")
    spans = [(a, 5, 8), (b, 0, 9), (a, 0, 2), (a, 7, 10), (a, 2, 3), (a, 10.5, 11), (b, 20, 21)]
    requests = [Request(path, (float(s), float(e))) for path, s, e in spans]
    assert _overlapping(requests) == [[2, 4], [0, 3], [5], [1], [6]]
    spans = [(a, 1, 2), (a, 5, 6), (a, 0, 10)]
    assert _overlapping([Request(path, (s, e)) for path, s, e in spans]) == [[2, 0, 1]]
    assert _overlapping([]) == []


# ---------------------------------------------------------------- clips that cannot be decoded


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A video of ten seconds without an index; from 2 s to 6 s it cannot be decoded."""
    path = film(tmp_path / "damaged.mp4", 100)
    spoil(path, 2.05, 5.95)
    return path


def test_another_clip_replaces_a_damaged_one(damaged: Path) -> None:
    data = clips(damaged, index="ignore", crop=None, frames_per_epoch=4 * 40)
    numbers_used, one_by_one, lost = [], [], 0
    for index in range(len(data)):
        attempts = 0
        while (found := decode(data, data.place(0, index, attempts))) is None:
            attempts += 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            item = data[index]
        expected = data.views(found, data.place(0, index, attempts).key)
        assert torch.equal(item["large"], expected["large"])
        one_by_one.append(item["small"])
        assert len(caught) == attempts
        lost += attempts
        numbers_used += numbers(found)
    assert lost and data.skipped == lost
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = data.__getitems__([7, 3, 11, 30, 22, 14])
    assert data.skipped > lost
    for item, key in zip(batch, [7, 3, 11, 30, 22, 14], strict=True):
        assert torch.equal(item["small"], one_by_one[key])
    assert not set(numbers_used) & set(range(20, 60))
    assert min(numbers_used) < 20 and max(numbers_used) >= 60


def decode(data: VideoClips, place: Place) -> Tensor | None:
    try:
        return data.clip(place)
    except ValueError:
        return None


def test_a_skipped_clip_causes_a_warning(damaged: Path) -> None:
    data = clips(damaged, index="ignore")
    index = next(i for i in range(50) if 2.1 < data.place(0, i).start < 5.9)
    place = data.place(0, index)
    span = rf"{place.start:.3f} to {place.start + 1.5:.3f} s of {re.escape(str(damaged))}"
    with pytest.warns(UserWarning, match=rf"Cannot decode {span}, so another clip is drawn: .+"):
        data[index]


def test_skipped_clips_of_all_workers_are_counted(damaged: Path) -> None:
    alone = clips(damaged, index="ignore", frames_per_epoch=4 * 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(alone)
        data = clips(damaged, index="ignore", frames_per_epoch=4 * 24)
        list(DataLoader(data, 4, num_workers=2))
    assert data.skipped == alone.skipped > 2


@pytest.mark.filterwarnings("ignore:Cannot decode")
def test_retries_are_limited(tmp_path: Path) -> None:
    path = film(tmp_path / "gone.mp4", 60)
    spoil(path, 0.05, 6)
    data = clips(path, index="ignore", retries=2)
    third = data.place(0, 0, 2)
    span = rf"{third.start:.3f} to {third.start + 1.5:.3f} s of \S+gone\.mp4"
    with pytest.raises(
        ValueError,
        match=rf"None of the 3 clips drawn for index 0 of epoch 0 could be decoded. The last one "
        rf"was {span}: .* mixplug video index ",
    ):
        data[0]
    assert data.skipped == 3
    with pytest.raises(ValueError, match=r"None of the 1 clips"):
        clips(path, index="ignore", retries=0)[0]


# ---------------------------------------------------------------- errors


def test_a_video_shorter_than_a_clip(folder: Path) -> None:
    text = (
        r"tour lasts 10 s, but a clip of 12 frames, 1 s apart, needs more than 11 s\. Reduce "
        r"frames or interval"
    )
    with pytest.raises(ValueError, match=text):
        clips(folder, frames=12, interval=1.0)


@pytest.mark.parametrize(
    ("frames", "given", "spans", "longest", "help_"),
    [
        (5, {}, 5, 2.5, "Set across_cuts=True, or reduce"),
        (6, {"across_cuts": True}, 3, 4, "Set blanks=True, or reduce"),
        (6, {}, 5, 2.5, "Set across_cuts=True and blanks=True, or reduce"),
        (9, {"across_cuts": True, "blanks": True}, 2, 8, "Reduce"),
    ],
)
def test_the_error_for_no_span_names_the_options_that_help(
    cut: Path, frames: int, given: dict, spans: int, longest: float, help_: str
) -> None:
    interval = 0.8 if frames < 9 else 1.0
    reach = (frames - 1) * interval
    text = (
        rf"tour has no room for a clip of {frames} frames, {interval:g} s apart, which needs more "
        rf"than {reach:.3g} s\. The longest of its {spans} usable spans \(without forbidden cuts, "
        rf"damage and blank frames\) lasts {longest:g} s\. {help_} frames or interval\."
    )
    with pytest.raises(ValueError, match=text):
        clips(cut, frames=frames, interval=interval, **given)


def test_a_crop_larger_than_the_frame(folder: Path) -> None:
    text = (
        r"crop=41 is larger than the frames of .*tour, which have 40 x 50 pixels\. Set crop to at"
    )
    with pytest.raises(ValueError, match=text):
        clips(folder, crop=41)
    assert clips(folder, crop=40).place(0, 0).corner[0] == 0


def test_an_index_is_needed(tmp_path: Path) -> None:
    path = frames_folder(tmp_path / "plain", 30)
    with pytest.raises(ValueError, match=rf"mixplug video index {re.escape(str(path))}"):
        clips(path)
    with pytest.raises(ValueError, match=r"index must be one of \('require', .*\), got 'no'\."):
        clips(path, index="no")
    save_index(path, FPS, 30, complete=False)
    with pytest.raises(ValueError, match=r"the scan was interrupted"):
        clips(path)


@pytest.mark.parametrize(
    "setting", [{"frames": 0}, {"interval": 0}, {"crop": 0}, {"group": 0}, {"retries": -1},
                {"cache_bytes": -1}],
)  # fmt: skip
def test_invalid_settings(folder: Path, setting: dict) -> None:
    with pytest.raises(ValueError, match="VideoClips needs frames, group and crop >= 1"):
        clips(folder, **setting)


def test_an_unknown_key_of_the_views(folder: Path) -> None:
    with pytest.raises(KeyError, match=r"MultiCrop has no key 'larg'.*large"):
        clips(folder, views={"larg": 3})
