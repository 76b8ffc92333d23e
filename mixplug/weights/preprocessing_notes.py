"""Read mean, std, size, crop and interpolation in the notes of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixplug.weights.config_text import walk

Told = Mapping[str, Any]  # fields of Preprocessing; absent or None if unknown
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # PIL
_TO_RGB = ("to_rgb", "bgr_to_rgb", "rgb_to_bgr")  # OpenMMLab's keys that change the order
_VIEWS = ("ViewsPreprocessor",)  # of mixplug; views are RGB, and its defaults those of ImageNet
_LOADERS = ("LoadImageFromFile", "LoadImage")  # of OpenMMLab; images are BGR


def of_written(config: Mapping[str, Any]) -> Told:
    """A ``pretrained_cfg`` of timm, or what mixplug writes in a similar form."""
    size = config.get("size")
    if size is None:
        shape = config.get("input_size")
        side = config.get("img_size")
        numbers = _numbers(shape) or ()
        size = numbers[1:] if len(numbers) == 3 else side
    crop = config.get("crop", config.get("crop_pct"))
    return {
        **_pair(config.get("mean"), config.get("std"), 1.0),
        "size": _size(size),
        "crop": float(crop) if _is_share(crop) else None,
        "interpolation": _name(config.get("interpolation")),
        "bgr": config.get("bgr") is True,
    }


def of_hub(config: Mapping[str, Any]) -> Told:
    """preprocessor_config.json of transformers."""
    if not config:
        return {}
    resized, cropped = _side(config.get("size")), _side(config.get("crop_size"))
    size = cropped if config.get("do_center_crop") and cropped else resized
    crop = None
    if size and resized:
        crop = min(size) / min(resized) if min(size) <= min(resized) else None
    mean, std = config.get("image_mean"), config.get("image_std")
    if config.get("do_normalize") is False:
        mean, std = [0.0], [1.0]
    return {
        **_pair(mean, std, 1.0),
        "size": size,
        "crop": crop,
        "interpolation": _RESAMPLE.get(config.get("resample", -1)),
    }


def of_mm(config: Mapping[str, Any]) -> Told:
    """An mm config: its ``data_preprocessor`` or ``Normalize``, and its test pipeline."""
    model = config.get("model")
    inner = model.get("data_preprocessor") if isinstance(model, Mapping) else None
    processor = inner or config.get("data_preprocessor")
    processor = processor if isinstance(processor, Mapping) else {}
    pipeline = list(_test_steps(config))
    return {**_colors_of_mm(processor, config, pipeline), **_resizing_of_mm(pipeline)}


def _colors_of_mm(
    processor: Mapping[str, Any], config: Mapping[str, Any], pipeline: list[Mapping[str, Any]]
) -> Told:
    steps = [step for step in pipeline if _type(step) == "Normalize"]
    normalize = processor if "mean" in processor else (steps or [processor])[0]
    loaded = any(_type(step) in _LOADERS for step in walk(dict(config)))
    turned = any(normalize.get(key) or processor.get(key) for key in _TO_RGB)
    views = _type(processor) in _VIEWS
    if not normalize:
        return {}
    if "mean" not in normalize:
        # OpenMMLab's preprocessors then give pixels in [0, 255] to the network.
        return {} if views else {**_pair([0.0], [1.0], 255.0), "bgr": loaded and not turned}
    found = _pair(normalize.get("mean"), normalize.get("std"), 255.0)
    return {**found, "bgr": loaded and not turned and not views}


def _resizing_of_mm(pipeline: list[Mapping[str, Any]]) -> Told:
    found: dict[str, Any] = {}
    resized = next((s for s in pipeline if _type(s) in ("ResizeEdge", "Resize")), {})
    cropped = next((s for s in pipeline if _type(s) == "CenterCrop"), {})
    before, size = _size(resized.get("scale")), _size(cropped.get("crop_size"))
    if size and before and min(size) <= min(before):
        found["crop"] = min(size) / min(before)
    elif before and not size:
        found["crop"] = 1.0
    if _type(resized) == "Resize" and before:
        before = before[::-1]  # (width, height) in mmcv
    found["size"] = size or before
    found["interpolation"] = _name(resized.get("interpolation")) or (before and "bilinear")
    return found


def _test_steps(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in ("test_dataloader", "val_dataloader", "test_pipeline", "data"):
        found = config.get(key)
        if isinstance(found, Mapping) and isinstance(found.get("test"), Mapping):
            found = found["test"]  # mm before version 2
        steps = [step for step in walk(found) if "type" in step]
        if any(_type(s) in (*_LOADERS, "Normalize", "Resize", "ResizeEdge") for s in steps):
            yield from steps
            return


def _type(step: Mapping[str, Any]) -> str:
    return str(step.get("type", "")).rpartition(".")[2]


def _pair(mean: Any, std: Any, unit: float) -> dict[str, Any]:
    """Mean and std as fractions, if both are numbers; one of them alone says nothing."""
    means, stds = _numbers(mean), _numbers(std)
    if means is None or stds is None or not min(stds) > 0:
        return {}
    length = max(len(means), len(stds))
    if {len(means), len(stds)} - {1, length}:
        return {}
    pair = (values * length if len(values) == 1 else values for values in (means, stds))
    first, second = (tuple(value / unit for value in values) for values in pair)
    return {"mean": first, "std": second}


def _numbers(values: Any) -> tuple[float, ...] | None:
    if isinstance(values, int | float) and not isinstance(values, bool):
        return (float(values),)
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    return tuple(map(float, values))


def _size(size: Any) -> tuple[int, int] | None:
    numbers = _numbers(size)
    if numbers is None or len(numbers) > 2 or not min(numbers) >= 1:
        return None
    return int(numbers[0]), int(numbers[-1])


def _side(size: Any) -> tuple[int, int] | None:
    """A size of transformers: a number, or a dictionary."""
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        return _size(edge if edge is not None else [size.get("height"), size.get("width")])
    return _size(size)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _name(value: Any) -> str | None:
    return value if value in ("bicubic", "bilinear", "nearest", "lanczos") else None
