"""Modules on top of a network: embedding head, decoder, autoencoder."""

from mixplug.models.heads.autoencoder import Autoencoder, VariationalAutoencoder
from mixplug.models.heads.decoder import GaussianHead, ResidualDecoder
from mixplug.models.heads.embedding import EmbeddingHead

__all__ = [
    "Autoencoder",
    "EmbeddingHead",
    "GaussianHead",
    "ResidualDecoder",
    "VariationalAutoencoder",
]
