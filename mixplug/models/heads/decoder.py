"""The image decoder of AlignMixup/AE and the variance head of AlignMixup/VAE."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mixplug.models.small.preact import init_conv

# The CIFAR generator of [0] starts from a side of 4. A limit of 7 also allows 224 = 7 * 32.
MAX_START = 7
WIDTH = 128  # width of the CIFAR generator of [0]


class ResidualDecoder(nn.Module):
    r"""Decoder from an embedding to an image, with residual upsampling blocks [0].

    e -> linear -> (width, h0, w0) -> blocks, each doubling the sides -> norm, ReLU, conv3x3.

    (h0, w0) is the size of the image, halved until no side is larger than 7: sides of 32 and 64
    start at 4, sides of 224 at 7. There are two differences to [0]. The output is linear instead
    of a tanh, since normalized images have no fixed range. Shortcuts have no weights, while [0] has
    a 1x1 convolution.

    Shapes: (B, D) to (B, C, H, W).

    Args:
        embed_dim: width D of the embedding.
        image_shape: (C, H, W) of the image to reconstruct.
        width: channels of all inner maps; 128 in the CIFAR generator of [0].

    Raises:
        ValueError: a size < 1, or an image that cannot be halved to sides of at most 7.

    - [0]: Improved Training of Wasserstein GANs, 2017, https://arxiv.org/abs/1704.00028
    """

    def __init__(
        self, embed_dim: int, image_shape: Sequence[int] = (3, 32, 32), width: int = WIDTH
    ) -> None:
        super().__init__()
        if embed_dim < 1 or width < 1:
            raise ValueError(f"embed_dim and width must be >= 1, got {embed_dim=}, {width=}.")
        chans, height, out_width = _check_image_shape(image_shape)
        h0, w0, doublings = start_grid(height, out_width)
        self.embed_dim = embed_dim
        self.start = (width, h0, w0)
        self.linear = nn.Linear(embed_dim, width * h0 * w0)
        self.blocks = nn.Sequential(*(UpsampleBlock(width) for _ in range(doublings)))
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, chans, 3, padding=1)
        self.apply(init_conv)
        # With He's fan_out, which is small for the last layer, initial images would have a variance
        # of 40. With fan_in, it is close to that of a normalized image.
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="linear")

    def forward(self, e: Tensor) -> Tensor:
        """Map embeddings e (B, D) to images (B, C, H, W)."""
        if e.ndim != 2 or e.shape[1] != self.embed_dim:
            raise ValueError(
                f"The decoder needs embeddings (B, {self.embed_dim}), got {tuple(e.shape)}."
            )
        x = self.linear(e).unflatten(1, self.start)
        return self.conv(F.relu(self.norm(self.blocks(x))))


class UpsampleBlock(nn.Module):
    """Pre-activation block that doubles the resolution: (B, C, h, w) to (B, C, 2h, 2w).

    y = up(x) + conv2(relu(norm2(conv1(up(relu(norm1(x))))))), where up is nearest-neighbor
    upsampling by a factor of 2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # No biases: the next norm would subtract them again.
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2h, 2w)."""
        branch = self.conv1(_double(F.relu(self.norm1(x))))
        return _double(x) + self.conv2(F.relu(self.norm2(branch)))


class GaussianHead(nn.Module):
    r"""Log-variance of the latent Gaussian of a VAE [0], whose mean is the embedding itself.

    z ~ N(e, diag(sigma^2)),   log sigma^2 = W e + b;   (B, D) to (B, D), natural logarithm.

    Args:
        embed_dim: width D of the embedding.

    - [0]: Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        if embed_dim < 1:
            raise ValueError(f"embed_dim must be >= 1, got {embed_dim=}.")
        self.log_var = nn.Linear(embed_dim, embed_dim)
        # Initially the VAE is almost an autoencoder. With W = 0, all images have the same noise.
        # With b = -4, sigma = exp(-2) = 0.14 is smaller than the scale of the embedding (about
        # 0.4, the mean of ReLU outputs of maps with unit variance), so the noise does not disturb
        # the classifier, which takes the same embedding. Still, sigma can grow again: the gradient
        # of the KL term in log sigma^2 is (sigma^2 - 1) / 2, close to -1/2.
        nn.init.zeros_(self.log_var.weight)
        nn.init.constant_(self.log_var.bias, -4.0)

    def forward(self, e: Tensor) -> Tensor:
        """Map embeddings e (B, D) to log sigma^2 (B, D)."""
        return self.log_var(e)


def start_grid(height: int, width: int) -> tuple[int, int, int]:
    """Halve a size until no side exceeds 7: (height, width) to (h0, w0, number of halvings).

    Raises:
        ValueError: a side becomes odd while it is larger than 7.
    """
    h, w, halvings = height, width, 0
    while max(h, w) > MAX_START and h % 2 == 0 and w % 2 == 0:
        h, w, halvings = h // 2, w // 2, halvings + 1
    if max(h, w) > MAX_START:
        raise ValueError(
            f"The decoder needs an image with sides n * 2^k, the same k for both and n <= "
            f"{MAX_START}, such as 28, 32, 64, 96 or 224. Halving {height}x{width} stops at "
            f"{h}x{w}."
        )
    return h, w, halvings


def _check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be (C, H, W), each >= 1, got {tuple(image_shape)}.")
    chans, height, width = image_shape
    return chans, height, width


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
