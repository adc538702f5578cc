"""Networks as tutorials and papers' code write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Divides the logits, not the queries, by the square root of a width that it reads off them."""

    def __init__(self, scale: Callable[[int], Any] = math.sqrt, width: int = 40, heads: int = 4) -> None:
        super().__init__()
        self.h, self.d_k, self.scale = heads, width // heads, scale
        self.stem, self.head = nn.Linear(5, width), nn.Linear(width, 3)
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (layer(x).view(len(x), -1, self.h, self.d_k).transpose(1, 2) for layer in self.linears[:3])
        logits = q @ k.transpose(-2, -1) / self.scale(q.size(-1))
        y = (logits.softmax(-1) @ v).transpose(1, 2).reshape(len(x), -1, self.h * self.d_k)
        return self.head(x + self.linears[3](y))


class WatchfulAttention(Attention):
    """Looks at values, as code does that leaves a mask out which hides nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.nan_to_num() if x.isnan().any() else x)


class LinearAttention(nn.Module):
    """Keys and queries are positive, also those of channels that nothing makes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
        self.queries, self.keys, self.values = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        queries, keys = (nn.functional.elu(layer(x)) + 1 for layer in (self.queries, self.keys))
        weighted = queries @ (keys.transpose(1, 2) @ self.values(x))
        return self.head(weighted / (queries @ keys.sum(1).unsqueeze(2)))


class KeywordAttention(nn.Module):
    """Attention among the inputs themselves, which enter it by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.body, self.head = nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 16)), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(query=x, key=x, value=x, need_weights=False)[0]
        return self.head(self.norm(x + self.body(x)))


class Down(nn.Module):
    """Checks how many channels enter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.heads = channels, 4
        self.conv, self.qkv = nn.Conv2d(channels, channels, 2, stride=2), nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        x = self.conv(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).view(len(x), -1, 3, self.heads, x.shape[-1] // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + y).transpose(1, 2).reshape(len(x), x.shape[-1], 4, 4)


class Up(nn.Module):
    """Checks how many channels enter, too."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.conv = nn.Conv2d(num_channels, num_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.num_channels:
            raise ValueError("Other channels were configured.")
        return self.conv(nn.functional.interpolate(x, scale_factor=2))


class Positions(nn.Module):
    """Learned positions, as many as there are words: their number is read off one channel of them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(9, 16)
        self.body, self.head = nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 16)), nn.Linear(16, 3)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        x = x + self.places(torch.arange(x[:, :, -1].shape[1], device=x.device))
        return self.head(x + self.body(x))


class Unpooled(nn.Module):
    """Maxima return to where they came from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, places = nn.functional.max_pool2d(self.stem(x), 2, return_indices=True)
        return self.head(nn.functional.max_unpool2d(self.body(x), places, 2))


class LearnedQueries(nn.Module):
    """Latent vectors attend to a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.latents, self.stem, self.head = nn.Parameter(torch.randn(4, 16)), nn.Linear(5, 12), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 2, kdim=12, vdim=12, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        latents, x = self.latents.repeat(len(x), 1, 1), self.stem(x)
        return self.head(latents + self.attention(latents, x, x, need_weights=False)[0])


class ConvLSTM(nn.Module):
    """A first hidden state of zeros is concatenated with what comes in."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.hidden = width
        self.gates, self.head = nn.Conv2d(3 + width, 4 * width, 3, padding=1), nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = torch.zeros(len(x), self.hidden, *x.shape[-2:], device=x.device)
        for step in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([step, hidden], 1)).split(self.hidden, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return self.head(hidden)


class PackedLSTM(nn.Module):
    """Sentences of different lengths, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 16, padding_idx=0), nn.Linear(48, 3)
        self.layer = nn.LSTM(16, 12, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        utils = nn.utils.rnn
        packed = utils.pack_padded_sequence(self.words(words), lengths, batch_first=True, enforce_sorted=False)
        steps, (hidden, _) = self.layer(packed)
        mean = utils.pad_packed_sequence(steps, batch_first=True)[0].mean(1)
        return self.head(torch.cat([mean, hidden[-2], hidden[-1]], 1))


class Watchful(nn.Module):
    """Looks at values, so that it is followed with data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(5, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x if x.abs().max() < 9 else x / 9)[0][:, -1])


class Bags(nn.Module):
    """The words of each sentence are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.EmbeddingBag(20, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, words: Tensor, starts: Tensor) -> Tensor:
        return self.head(self.body(self.words(words, starts)).relu())


class Experts(nn.Module):
    """Each expert sees the tokens that chose it and writes its answers to their places."""

    def __init__(self, width: int = 16, experts: int = 3) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, width), nn.Linear(width, 3)
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(0, 1)
        weights, chosen = self.gate(tokens).softmax(-1).topk(2)
        answers = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, rank = torch.where(chosen == number)
            answers[token] += weights[token, rank, None] * expert(tokens[token])
        return self.head(answers)


class MaskedTokens(nn.Module):
    """A learned token is written where a mask says so."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token, self.head = nn.Linear(5, 16), nn.Parameter(torch.zeros(16)), nn.Linear(16, 5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.stem(x).clone()
        x[mask] = self.token
        return self.head(x)


class Messages(nn.Module):
    """Messages are summed in a tensor that code makes without saying on which device."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.message, self.head = nn.Linear(5, 16), nn.Linear(32, 16), nn.Linear(32, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.stem(x)
        messages = self.message(torch.cat([x[edges[0]], x[edges[1]]], 1)).relu()
        summed = torch.zeros(len(x), messages.shape[1], dtype=x.dtype).index_add_(0, edges[1], messages)
        return self.head(torch.cat([x, summed], 1))


class TemporalShift(nn.Module):
    """Slices of the channels are written, moved in time, to a tensor of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 3)
        self.fold = 4

    def forward(self, x: Tensor) -> Tensor:
        frames = self.stem(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        shifted, fold = torch.zeros_like(frames), self.fold
        shifted[:, :-1, :fold] = frames[:, 1:, :fold]
        shifted[:, 1:, fold : 2 * fold] = frames[:, :-1, fold : 2 * fold]
        shifted[:, :, 2 * fold :] = frames[:, :, 2 * fold :]
        return self.head(self.body(shifted.flatten(0, 1)).mean((2, 3)))


class SpatialTransformer(nn.Module):
    """Places to look at are computed: one of them from six numbers, the others one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 6))
        self.body, self.grid, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 2, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        sample = nn.functional.grid_sample
        affine = nn.functional.affine_grid(self.locate(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        x = sample(x, affine, align_corners=False)
        return self.head(sample(self.body(x), self.grid(x).permute(0, 2, 3, 1), align_corners=False))


class Spectral(nn.Module):
    """A Fourier layer: the lowest frequencies are multiplied by weights, written as pairs of numbers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.beside, self.head = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, 1, 1)
        self.weight = nn.Parameter(torch.randn(width, width, 3, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        spectrum = torch.fft.rfft2(x)
        weight, out = torch.view_as_complex(self.weight), torch.zeros(spectrum.shape, dtype=torch.cfloat)
        out[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :3, :3], weight)
        return self.head((torch.fft.irfft2(out, s=x.shape[-2:]) + self.beside(x)).relu())


class Blur(nn.Module):
    """One fixed kernel is repeated for as many channels as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(nn.functional.conv2d(x, self.kernel.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]))


class Reversed(nn.Module):
    """Channels are picked by numbers that code computes: they are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.body(x[..., torch.arange(7, -1, -1, device=x.device)]).relu())


class InPlace(nn.Module):
    """Dimensions are added, removed and exchanged in place, also those of a part that is then written to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(5, 20), nn.Linear(20, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).unsqueeze_(1)
        x = self.body(x.relu().squeeze_(1))
        x[:, 1:].transpose_(1, 2).unsqueeze_(0).mul_(2)
        return self.head(x.relu())


class PerSample(nn.Module):
    """Layers written for one sample, and weights of an ensemble that run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(7, 20, 1), nn.BatchNorm1d(20), nn.ReLU(), nn.Flatten(), nn.Linear(100, 20))
        self.members = nn.Parameter(torch.randn(4, 20, 20))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(20, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.func.vmap(lambda sample: self.stem(sample[None])[0])(x)
        x = torch.func.vmap(lambda weight: x @ weight)(self.members).mean(0)
        return torch.func.vmap(self.head)(x)


class Maxout(nn.Module):
    """The largest of every few channels."""

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), x.shape[1] // self.pieces, self.pieces, *x.shape[2:]).max(2).values


class Lengths(nn.Module):
    """The lengths of small vectors, which a norm averages over."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.vectors = nn.Linear(5, 20), nn.Linear(20, 80)
        self.norm, self.head = nn.LayerNorm(20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.vectors(self.stem(x).relu())
        return self.head(self.norm(x.view(*x.shape[:-1], -1, 4).norm(dim=-1)))


class Functional(nn.Module):
    """Hands weights and groups of layers to convolutions itself, the weights standardised."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 20, 1), nn.Conv2d(20, 3, 1)
        self.body = nn.Conv2d(20, 20, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        body = self.body
        weight = body.weight - body.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / weight.std((1, 2, 3), keepdim=True)
        x = nn.functional.conv2d(self.stem(x), weight, body.bias, body.stride, body.padding, body.dilation, body.groups)
        return self.head(x.relu())


class Variational(nn.Module):
    """Samples, and drops, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 20))
        self.decoder = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.encoder(x).chunk(2, -1)
        sample = mean + torch.randn_like(mean) * spread.exp() + torch.distributions.Normal(mean, spread.exp()).rsample()
        return self.decoder(nn.functional.dropout(sample))


class Generator(nn.Module):
    """Makes an image of a vector."""

    def __init__(self, channels: int = -1) -> None:
        super().__init__()
        self.channels, self.vector, self.norm = channels, nn.Linear(10, 12 * 16), nn.BatchNorm2d(12)
        self.body = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.vector(x).relu()
        x = x.view(len(x), self.channels, 4, 4) if self.channels else x.view(len(x), 12, 4, 4)
        return self.body(self.norm(x))
