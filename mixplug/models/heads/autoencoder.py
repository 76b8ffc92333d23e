"""What AlignMixup/AE and AlignMixup/VAE learn beside the classifier: a decoder of its embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mixplug.functional.precision import exact_dtype
from mixplug.models.heads.decoder import WIDTH, GaussianHead, ResidualDecoder


class Autoencoder(nn.Module):
    """A decoder D that makes, with the host's encoder, a vanilla autoencoder (3.4.1).

    Args:
        embed_dim: width D of the embedding e.
        image_shape: (C, H, W) of the images.
        width: channels of the decoder's inner maps.
    """

    def __init__(self, embed_dim: int, image_shape: Sequence[int], width: int = WIDTH) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.decoder = ResidualDecoder(embed_dim, self.image_shape, width)

    def losses(self, x: Tensor, e: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """``|x - D(e)|^2``, summed over pixels, averaged over the batch (Algorithm 1, line 7).

        Args:
            x: (B, C, H, W) images.
            e: (B, D) their embeddings.
            noise: (B, D) standard normal draws, for a decoder that samples.

        Raises:
            ValueError: images of another shape than the decoder was built for.
        """
        return {"reconstruction": self._distance(x, e)}

    def between(self, e: Tensor, mix: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """Mixed embeddings (B, D): what ``mix`` makes of e, (3.5)."""
        return mix(e)

    def untouched(self) -> Tensor:
        """Zero that depends on every parameter, so that DDP does not wait for those out of use."""
        return torch.stack([p.flatten()[0] * 0 for p in self.parameters()]).sum()

    def _distance(self, x: Tensor, code: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"The decoder was built for images of image_shape={self.image_shape}, the batch "
                f"has {tuple(x.shape[1:])}."
            )
        image = self.decoder(code)
        return (_exact(image) - _exact(x)).square().flatten(1).sum(1).mean()


class VariationalAutoencoder(Autoencoder):
    """The embedding as the mean μ of a Gaussian, whose log σ² is a linear map of it (3.4.6).

    The host's classifier keeps reading e = μ, so that nothing changes at test time.

    Args:
        embed_dim: width D of μ and σ.
        image_shape: (C, H, W) of the images.
        width: channels of the decoder's inner maps.
    """

    def __init__(self, embed_dim: int, image_shape: Sequence[int], width: int = WIDTH) -> None:
        super().__init__(embed_dim, image_shape, width)
        self.log_variance = GaussianHead(embed_dim)

    def losses(self, x: Tensor, e: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Reconstruction from a draw, and the KL divergence of N(μ, σ²) from N(0, I).

        Both are sums (over pixels, over D) averaged over the batch; arguments as in the base.
        """
        log_variance = self.log_variance(e)
        code = e + torch.exp(log_variance / 2) * noise
        mean, log_variance = _exact(e), _exact(log_variance)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {"reconstruction": self._distance(x, code), "kl": kl}

    def between(self, e: Tensor, mix: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """A draw from the Gaussian of the mixed μ and the mixed σ (Table 3.8, (μ, σ))."""
        return mix(e) + mix(torch.exp(self.log_variance(e) / 2)) * noise


def _exact(t: Tensor) -> Tensor:
    return t.to(exact_dtype(t))
