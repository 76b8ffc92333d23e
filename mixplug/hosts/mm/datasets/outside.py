"""Out-of-distribution images for mmengine: ``mixplug.OODFolder`` and ``mixplug.OODNoise``.

They are tested together with the test set of a classifier, in a ConcatDataset, by
mixplug.OODDetection. Their data samples have the meta key ``role='ood'``, by which the evaluators
of reliability recognize them, and ``gt_label=0``, which means nothing: data preprocessors need one.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from mixplug.data.noise import Noise
from mixplug.data.unlabeled import Unlabeled
from mixplug.hosts.mm.datasets.retrieval import RetrievalDataset
from mixplug.registry import DATASETS

ORDERS = ("bgr", "rgb")


class Outside(RetrievalDataset):
    """Base of both: images of a torch data set, each loaded when it is needed.

    Args:
        images: (3, H, W) each, RGB, uint8 or in [0, 1].
        channel_order: 'bgr', as LoadImageFromFile of mmcv gives them, or 'rgb'.
        pipeline: transforms; the first one gets ``img`` (H, W, 3) uint8 and ``gt_label``.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.

    Raises:
        ValueError: another order.
    """

    def __init__(
        self, images: Dataset[Tensor], channel_order: str, pipeline: list, **options: object
    ) -> None:
        if channel_order not in ORDERS:
            raise ValueError(
                f"{type(self).__name__} needs a channel_order in {ORDERS}, got {channel_order!r}."
            )
        self.images, self.channel_order = images, channel_order
        super().__init__("folder", split="test", pipeline=pipeline, role="ood", **options)

    def load_data_list(self) -> list[dict]:
        """One dict per image."""
        return [{"number": i, "gt_label": 0, "role": self.role} for i in range(len(self.images))]

    def get_data_info(self, idx: int) -> dict:
        """The record of an example, with its image."""
        info = super().get_data_info(idx)
        image = self.images[info["number"]]
        if image.is_floating_point():
            image = (image * 255).round().byte()
        if self.channel_order == "bgr":
            image = image.flip(0)
        shape = tuple(image.shape[1:])
        array = image.permute(1, 2, 0).contiguous().numpy()
        return {**info, "img": array, "img_shape": shape, "ori_shape": shape}


@DATASETS.register_module()
class OODFolder(Outside):
    """Out-of-distribution images: all below a folder, flat or nested (Tables 3.4, 5.7).

    They come in the order of their paths.

    Args:
        data_root: the folder.
        size: side of the images in pixels; None leaves the size to the pipeline.
        how: how images are brought to that size: 'crop' or 'resize', see
            :func:`mixplug.data.unlabeled.fit`.
        channel_order: 'bgr' if the data preprocessor has ``to_rgb=True``, as for ImageNet, or 'rgb'
            if not, as for CIFAR. The wrong order makes images look stranger than they are.
        pipeline: transforms; the first one gets ``img`` (H, W, 3) uint8 and ``gt_label``.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.

    Raises:
        ValueError: no such folder, no image in it, or another ``how`` or order.
    """

    def __init__(
        self,
        data_root: str,
        size: int | None = None,
        how: str = "crop",
        channel_order: str = "bgr",
        pipeline: list = (),
        **options: object,
    ) -> None:
        # upright, as mmcv loads the test images
        images = Unlabeled(data_root, size, how, orientation="apply")
        super().__init__(images, channel_order, pipeline, **options)


@DATASETS.register_module()
class OODNoise(Outside):
    """Out-of-distribution images that are noise (Table 3.5), see :class:`mixplug.data.Noise`.

    Args:
        kind: kind of noise, 'uniform' or 'gaussian'.
        count: number of images.
        size: (height, width) in pixels, or one number for both.
        seed: seed of the noise.
        pipeline: transforms; the first one gets ``img`` (H, W, 3) uint8 and ``gt_label``.
        **options: further keys of mmengine's BaseDataset, such as ``indices``.

    Raises:
        ValueError: see :class:`mixplug.data.noise.Noise`.
    """

    def __init__(
        self,
        kind: str = "uniform",
        count: int = 10000,
        size: int | Sequence[int] = 32,
        seed: int = 0,
        pipeline: list = (),
        **options: object,
    ) -> None:
        shape = (3, size, size) if isinstance(size, int) else (3, *size)
        super().__init__(Noise(kind, count, shape, seed), "rgb", pipeline, **options)
