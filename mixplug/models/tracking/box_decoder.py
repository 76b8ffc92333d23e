"""A causal transformer that reads a box out of patch tokens, one coordinate at a time [0].

The lightweight decoder of 6.5.3. Letters: B crops, N patches, L tokens of a sequence, D width.

- [0]: SeqTrack: Sequence to Sequence Learning for Visual Object Tracking, 2023,
  https://arxiv.org/abs/2304.14394
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mixplug.functional.box_tokens import COORDINATES, start_token


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to patches, and an MLP, each followed by a norm.

    As in DETR, positions are added to queries and keys of every block and never to values.

    Args:
        dim: D.
        heads: of both attentions.
        hidden: width of the MLP.
        dropout: after each of the three and inside of them.
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

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, keys: Tensor) -> Tensor:
        """Tokens (B, L, D) after the block.

        Args:
            x: tokens.
            place: their positions, (L, D).
            memory: patches, (B, N, D), as values.
            keys: patches with positions, (B, N, D).
        """
        length = x.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        q = x + place
        own, _ = self.self_attention(q, q, x, attn_mask=later, need_weights=False)
        x = self.norms[0](x + self.dropout(own))
        seen, _ = self.cross_attention(x + place, keys, memory, need_weights=False)
        x = self.norms[1](x + self.dropout(seen))
        return self.norms[2](x + self.dropout(self.mlp(x)))


class BoxDecoder(nn.Module):
    """Patch tokens to the likelihoods of a sequence ``start, x, y, w, h, end``.

    The first ``bins`` words are coordinates, then end and start. Defaults are SeqTrack's for
    GOT-10k, two blocks instead of the six of its other models.

    Args:
        width: of the patch tokens that come in.
        patches: N.
        bins: of a coordinate.
        dim: D.
        blocks: number of them.
        heads: of a block.
        hidden: width of a block's MLP.
        dropout: of blocks and words.

    Raises:
        ValueError: fewer than 2 bins, fewer than 1 of the others, or a D that heads do not divide.
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
                f"BoxDecoder needs bins >= 2, width, patches, blocks, hidden >= 1 and a dim that "
                f"2 * heads divides, got bins={bins}, width={width}, patches={patches}, "
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
        """Logits of the word that follows each token, given those up to it.

        Args:
            patches: (B, N, width).
            tokens: (B, L) int64, L <= 5.

        Returns:
            (B, L, bins + 2).

        Raises:
            ValueError: N is not that of this decoder, or L > 5.
        """
        return self.likelihoods(self._read(self._remember(patches), tokens))

    @torch.no_grad()
    def read(self, patches: Tensor, window: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The likeliest coordinates, one after the other, each given those before it.

        Args:
            patches: (B, N, width).
            window: weights (bins,) of the likelihoods of center x and y; None is 1.

        Returns:
            Tokens (B, 4) int64 and their likelihoods (B, 4) float32, after the window, under a
            softmax over all words.

        Raises:
            ValueError: see :meth:`forward`.
        """
        memory = self._remember(patches)
        tokens = torch.full((len(patches), 1), start_token(self.bins), device=patches.device)
        chosen = []
        for place in range(COORDINATES):
            logits = self.likelihoods(self._read(memory, tokens)[:, -1])
            likely = logits.float().softmax(-1)[:, : self.bins]
            if window is not None and place < 2:
                likely = likely * window
            best, token = likely.max(-1)
            chosen.append(best)
            tokens = torch.cat([tokens, token[:, None]], 1)
        return tokens[:, 1:], torch.stack(chosen, 1)

    def _remember(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Values and keys of the patches."""
        if patches.dim() != 3 or patches.shape[1] != len(self.patch_positions):
            raise ValueError(
                f"BoxDecoder needs patch tokens (B, {len(self.patch_positions)}, width), got "
                f"{tuple(patches.shape)}."
            )
        memory = self.narrow(patches)
        return memory, memory + self.patch_positions

    def _read(self, memory: tuple[Tensor, Tensor], tokens: Tensor) -> Tensor:
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
    """Sines and cosines of ``position / 10000^(2 i / dim)``, (positions, dim) float32, dim even."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
