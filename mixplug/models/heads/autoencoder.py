"""Autoencoders of AlignMixup/AE and AlignMixup/VAE: a decoder of the classifier's embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mixplug.functional.precision import exact_dtype
from mixplug.models.heads.decoder import WIDTH, GaussianHead, ResidualDecoder


class Autoencoder(nn.Module):
    """A decoder that, with the encoder of the classifier, forms a vanilla autoencoder (§3.4.1).

    Args:
        embed_dim: width D of the embedding e.
        image_shape: (C, H, W) of the images.
        width: channels of the inner maps of the decoder.
    """

    def __init__(self, embed_dim: int, image_shape: Sequence[int], width: int = WIDTH) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.decoder = ResidualDecoder(embed_dim, self.image_shape, width)

    def losses(self, x: Tensor, e: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Reconstruction loss ``|x - decoder(e)|^2`` (Algorithm 1, line 7).

        Args:
            x: images, (B, C, H, W).
            e: their embeddings, (B, D).
            noise: standard normal draws, (B, D), for an autoencoder that samples.

        Returns:
            'reconstruction', a sum over pixels and mean over the batch.

        Raises:
            ValueError: the images do not have the shape that the decoder was built for.
        """
        return {"reconstruction": self._distance(x, e)}

    def between(self, e: Tensor, mix: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """Mixed embeddings (B, D) (eq. 3.5): ``mix`` applied to e."""
        return mix(e)

    def untouched(self) -> Tensor:
        """Zero that depends on every parameter, so that DDP does not wait for unused ones."""
        return torch.stack([p.flatten()[0] * 0 for p in self.parameters()]).sum()

    def _distance(self, x: Tensor, code: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"The decoder needs images of image_shape={self.image_shape}, got "
                f"{tuple(x.shape[1:])}."
            )
        image = self.decoder(code)
        return (_exact(image) - _exact(x)).square().flatten(1).sum(1).mean()


class VariationalAutoencoder(Autoencoder):
    """Variational autoencoder (§3.4.6): the embedding e is the mean μ of a Gaussian.

    log σ² is a linear function of e. The classifier still takes e = μ, so inference does not
    change.

    Args:
        embed_dim: width D of μ and σ.
        image_shape: (C, H, W) of the images.
        width: channels of the inner maps of the decoder.
    """

    def __init__(self, embed_dim: int, image_shape: Sequence[int], width: int = WIDTH) -> None:
        super().__init__(embed_dim, image_shape, width)
        self.log_variance = GaussianHead(embed_dim)

    def losses(self, x: Tensor, e: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Reconstruction loss of a sample, and KL divergence of N(μ, σ²) from N(0, I).

        Arguments and errors: see :meth:`Autoencoder.losses`.

        Returns:
            'reconstruction', a sum over pixels, and 'kl', a sum over D; both are means over the
            batch.
        """
        log_variance = self.log_variance(e)
        code = e + torch.exp(log_variance / 2) * noise
        mean, log_variance = _exact(e), _exact(log_variance)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {"reconstruction": self._distance(x, code), "kl": kl}

    def between(self, e: Tensor, mix: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """A sample of the Gaussian with mixed μ and mixed σ, (B, D) (Table 3.8, row (μ, σ))."""
        return mix(e) + mix(torch.exp(self.log_variance(e) / 2)) * noise


def _exact(t: Tensor) -> Tensor:
    return t.to(exact_dtype(t))
