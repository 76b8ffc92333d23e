"""Small networks, and their stages written out by hand for one example at a time.

``feature_map`` is F: x (3, H, W) to A (C, h, w); ``embed`` is f: A to e (D,); ``classify`` is g: e
to logits (K,), in the letters of the thesis. Nothing of mixplug is used here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixplug import Stages
from mixplug.layouts import Layout

CLASSES = 4


class Forced(nn.Module):
    """Computes what a linear layer does without being one, so nobody can know that it is linear."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        plain = nn.Linear(in_features, out_features)
        self.weight, self.bias = plain.weight, plain.bias
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class ConvNet(nn.Module):
    """Two convolutions, tanh, mean over positions, norm, one hidden layer, dropout, classifier.

    Without the tanh the mean would not see whether maps were aligned: R has row sums of one.
    """

    layout = Layout()

    def __init__(self, head: type[nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 5, 3, padding=1)
        )
        nn.init.normal_(self.body[2].weight, std=0.5)  # maps that tanh bends
        self.norm = nn.LayerNorm(5)
        self.hidden = nn.Linear(5, 6)
        self.dropout = nn.Dropout(0.5)
        self.fc = head(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        e = torch.tanh(self.body(x)).mean((2, 3))
        e = torch.tanh(self.hidden(self.norm(e)))
        return self.fc(self.dropout(e))


class ConvHeadNet(ConvNet):
    """Classifies by a 1x1 convolution of the pooled map, then flattens."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(5, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3), keepdim=True)).flatten(1)


class _ToChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsLastNet(ConvNet):
    """As ConvNet, with a map (B, H, W, C)."""

    layout = Layout(channels_last=True)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*self.body, _ToChannelsLast())

    def forward(self, x: Tensor) -> Tensor:
        e = torch.tanh(self.body(x)).mean((1, 2))
        e = torch.tanh(self.hidden(self.norm(e)))
        return self.fc(self.dropout(e))


class PyramidNet(ConvNet):
    """As ConvNet, with a tuple of levels as the body's output."""

    class Body(nn.Module):
        def __init__(self, body: nn.Sequential) -> None:
            super().__init__()
            self.steps = nn.ModuleList(body)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            inner = self.steps[1](self.steps[0](x))
            return inner, self.steps[2](inner)

    def __init__(self) -> None:
        super().__init__()
        self.body = PyramidNet.Body(self.body)

    def forward(self, x: Tensor) -> Tensor:
        e = torch.tanh(self.body(x)[-1]).mean((2, 3))
        e = torch.tanh(self.hidden(self.norm(e)))
        return self.fc(self.dropout(e))


class Block(nn.Module):
    """Every token gets the mean of all through a linear map: tokens see each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean, self.own = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + torch.tanh(self.own(tokens) + self.mean(tokens.mean(1, keepdim=True)))


class TokenNet(nn.Module):
    """Patches and P prefix tokens, two blocks; pools the first prefix token or the patches."""

    def __init__(self, prefix: int = 2, pool: str = "token") -> None:
        super().__init__()
        self.layout = Layout(prefix=prefix)
        self.patches = nn.Conv2d(3, 5, 2, stride=2)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 5))
        self.blocks = nn.ModuleList([Block(5), Block(5)])
        self.hidden = nn.Linear(5, 6)
        self.fc = nn.Linear(6, CLASSES)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.prefix.expand(len(x), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        pooled = tokens[:, 0] if self.pool == "token" else tokens[:, self.layout.prefix :].mean(1)
        return self.fc(torch.tanh(self.hidden(pooled)))


def stages_of(model: nn.Module, **options: object) -> Stages:
    """The stages of a toy, with the names that they all share."""
    options.setdefault("features", "body" if hasattr(model, "body") else "blocks.0")
    if hasattr(model, "blocks"):
        options.setdefault("last", "blocks.1")
    return Stages(model, classifier="fc", layout=model.layout, **options)


def feature_map(net: ConvNet, x: Tensor) -> Tensor:
    """F of one example: (3, H, W) to (5, h, w)."""
    steps = [m for m in net.body.modules() if isinstance(m, nn.Conv2d)]
    inner = torch.tanh(F.conv2d(x[None], steps[0].weight, steps[0].bias, stride=2, padding=1))
    return F.conv2d(inner, steps[1].weight, steps[1].bias, padding=1)[0]


def embed(net: ConvNet, a: Tensor) -> Tensor:
    """f of one map (5, h, w) of any size: (6,), or (5,) for the convolutional head."""
    if isinstance(net, ConvHeadNet):
        return torch.stack([channel.sum() / channel.numel() for channel in a])
    pooled = torch.stack([torch.tanh(channel).sum() / channel.numel() for channel in a])
    centered = pooled - pooled.sum() / 5
    normal = centered / torch.sqrt((centered * centered).sum() / 5 + net.norm.eps)
    return torch.tanh(
        net.hidden.weight @ (normal * net.norm.weight + net.norm.bias) + net.hidden.bias
    )


def classify(net: nn.Module, e: Tensor) -> Tensor:
    """g of one embedding: (K,) logits."""
    return net.fc.weight.flatten(1) @ e + net.fc.bias


def by_hand(net: ConvNet, x: Tensor, edit: Callable[[Tensor], Tensor] = lambda a: a) -> Tensor:
    """Logits (B, K) with a function of (B, C, h, w) between F and f."""
    maps = edit(torch.stack([feature_map(net, one) for one in x]))
    return torch.stack([classify(net, embed(net, a)) for a in maps])


def columns(a: Tensor) -> list[Tensor]:
    """The positions of a map (C, h, w) as maps (C, 1, 1), row by row."""
    return [a[:, i : i + 1, j : j + 1] for i in range(a.shape[1]) for j in range(a.shape[2])]


def pool(a: Tensor, r: int) -> Tensor:
    """Mean of a map (C, h, w) over r x r cells, cell i from floor(i h/r) to ceil((i+1) h/r)."""

    def cells(size: int) -> list[slice]:
        return [slice(i * size // r, -(-(i + 1) * size // r)) for i in range(r)]

    rows = [
        torch.stack([a[:, up, across].mean((1, 2)) for across in cells(a.shape[2])], 1)
        for up in cells(a.shape[1])
    ]
    return torch.stack(rows, 1)
