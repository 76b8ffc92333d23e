"""A causal transformer that predicts a box from patch tokens, one coordinate at a time [0].

It is the lightweight decoder of §6.5.3. Letters: B crops, N patches, L tokens of a sequence, D
width.

- [0]: SeqTrack: Sequence to Sequence Learning for Visual Object Tracking, 2023,
  https://arxiv.org/abs/2304.14394
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mixplug.functional.box_tokens import COORDINATES, start_token
from mixplug.renamed import renamed_keys


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to patches, and an MLP, each followed by a norm.

    As in DETR, positions are added to the queries and keys of every block, but not to values.

    Args:
        dim: width D.
        heads: number of heads of both attentions.
        hidden: hidden width of the MLP.
        dropout: dropout probability inside and after each of the three parts.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    @renamed_keys(place="position")
    def forward(self, x: Tensor, position: Tensor, memory: Tensor, keys: Tensor) -> Tensor:
        """Apply the block to tokens.

        Args:
            x: tokens, (B, L, D).
            position: position embeddings of the tokens, (L, D).
            memory: patches as values, (B, N, D).
            keys: patches plus their position embeddings, (B, N, D).

        Returns:
            Tokens, (B, L, D).
        """
        length = x.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        q = x + position
        tokens, _ = self.self_attention(q, q, x, attn_mask=later, need_weights=False)
        x = self.norms[0](x + self.dropout(tokens))
        patches, _ = self.cross_attention(x + position, keys, memory, need_weights=False)
        x = self.norms[1](x + self.dropout(patches))
        return self.norms[2](x + self.dropout(self.mlp(x)))


class BoxDecoder(nn.Module):
    """Decoder from patch tokens to the likelihoods of a sequence ``start, x, y, w, h, end``.

    The vocabulary has ``bins`` coordinates, then the end token and the start token. The defaults
    are those of SeqTrack for GOT-10k, which has two blocks, while its other models have six.

    Args:
        width: width of the patch tokens.
        patches: number N of patches.
        bins: number of bins of a coordinate, at least 2.
        dim: width D of the decoder.
        blocks: number of blocks.
        heads: number of attention heads.
        hidden: hidden width of the MLPs.
        dropout: dropout probability of blocks and token embeddings.

    Raises:
        ValueError: fewer than 2 bins, another size below 1, or a ``dim`` that is not a multiple of
            2 * heads.
    """

    def __init__(
        self,
        width: int,
        patches: int,
        bins: int = 4000,
        dim: int = 256,
        blocks: int = 2,
        heads: int = 8,
        hidden: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if bins < 2 or min(width, patches, dim, blocks, heads, hidden) < 1 or dim % (2 * heads):
            raise ValueError(
                f"BoxDecoder needs bins >= 2, width, patches, blocks, hidden >= 1 and a multiple "
                f"of 2 * heads as dim, got bins={bins}, width={width}, patches={patches}, "
                f"blocks={blocks}, hidden={hidden}, dim={dim}, heads={heads}."
            )
        self.bins, words = bins, bins + 2
        self.narrow = nn.Linear(width, dim)
        self.patch_positions = nn.Parameter(sinusoids(patches, dim))
        self.words = nn.Embedding(words, dim)
        self.places = nn.Parameter(torch.empty(1 + COORDINATES, dim))
        self.norm_in, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            DecoderBlock(dim, heads, hidden, dropout) for _ in range(blocks)
        )
        for weights in (*self.blocks.parameters(), self.words.weight, self.places):
            if weights.dim() > 1:
                nn.init.xavier_uniform_(weights)
        self.likelihoods = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, words)
        )

    def forward(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the token that follows each token, given the tokens so far.

        Args:
            patches: patch tokens, (B, N, width).
            tokens: tokens of the sequence from the start token on, (B, L) int64, 1 <= L <= 5.

        Returns:
            (B, L, bins + 2).

        Raises:
            ValueError: N is not that of this decoder, or L is not in [1, 5].
        """
        return self.likelihoods(self._decode(self._memory(patches), tokens))

    @torch.no_grad()
    def read(self, patches: Tensor, window: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decode a box greedily: the most likely coordinates, one after the other.

        Args:
            patches: patch tokens, (B, N, width).
            window: factors of the likelihoods of center x and center y, (bins,). None is 1.

        Returns:
            Tokens (B, 4) int64, and their likelihoods (B, 4) float32. The likelihoods are from a
            softmax over the whole vocabulary, multiplied by the window.

        Raises:
            ValueError: see :meth:`forward`.
        """
        memory = self._memory(patches)
        tokens = torch.full((len(patches), 1), start_token(self.bins), device=patches.device)
        likelihoods = []
        for coordinate in range(COORDINATES):
            logits = self.likelihoods(self._decode(memory, tokens)[:, -1])
            likelihood = logits.float().softmax(-1)[:, : self.bins]
            if window is not None and coordinate < 2:
                likelihood = likelihood * window
            best, token = likelihood.max(-1)
            likelihoods.append(best)
            tokens = torch.cat([tokens, token[:, None]], 1)
        return tokens[:, 1:], torch.stack(likelihoods, 1)

    def _memory(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Values and keys (B, N, D) of the patches."""
        if patches.dim() != 3 or patches.shape[1] != len(self.patch_positions):
            raise ValueError(
                f"BoxDecoder needs patch tokens (B, {len(self.patch_positions)}, width), got "
                f"{tuple(patches.shape)}."
            )
        memory = self.narrow(patches)
        return memory, memory + self.patch_positions

    def _decode(self, memory: tuple[Tensor, Tensor], tokens: Tensor) -> Tensor:
        """Hidden states (B, L, D) of tokens (B, L)."""
        if tokens.dim() != 2 or not 1 <= tokens.shape[1] <= len(self.places):
            raise ValueError(
                f"BoxDecoder needs tokens (B, L) with 1 <= L <= {len(self.places)}, got "
                f"{tuple(tokens.shape)}."
            )
        x = self.dropout(self.norm_in(self.words(tokens)))
        for block in self.blocks:
            x = block(x, self.places[: tokens.shape[1]], *memory)
        return self.norm_out(x)


def sinusoids(positions: int, dim: int) -> Tensor:
    """Sinusoidal position embeddings, (positions, dim) float32, for an even ``dim``.

    They alternate sines and cosines of ``position / 10000^(2 i / dim)``.
    """
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
