"""Small networks with what libraries for medical images write, which textbooks do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Reconstructing(nn.Module):
    """A branch that runs in train mode only makes an image again, of as many channels as it was built for."""

    def __init__(self) -> None:
        super().__init__()
        self.smallest, self.size = 20, [2, 2]
        self.stem, self.head = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 3, 1)
        self.small, self.vector = nn.Conv2d(16, 20, 2), nn.Linear(80, 12)
        self.back, self.image = nn.Linear(12, 80), nn.ConvTranspose2d(20, 3, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        if not self.training:
            return self.head(x)
        vector = self.vector(self.small(x).view(-1, self.vector.in_features))
        return self.head(x), self.image(self.back(vector).view([-1, self.smallest, *self.size]))


class _Halves(nn.Module):
    """Halves the resolution by two layers, each of which makes half of the channels."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(inner, outer // 2, 1, 2), nn.Conv2d(inner, outer - outer // 2, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.other(x[:, :, 1:, 1:])], 1)


class SideBySide(nn.Module):
    """What layers side by side make is added to what another layer made before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.head = nn.Conv2d(3, 16, 3, 2, 1), _Halves(3, 16), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.stem(x) + self.down(x)).relu())


class FilledUp(nn.Module):
    """The shortcut of a residual block fills its channels up by zeros to a number that is written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 3, 1)
        self.inner, self.outer = nn.Conv2d(16, 40, 3, 2, 1), nn.Conv2d(40, 32, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        short = x[:, :, ::2, ::2]
        zeros = torch.zeros(len(x), 32 - short.shape[1], *short.shape[2:], dtype=x.dtype, device=x.device)
        return self.head((self.norm(self.outer(self.inner(x).relu())) + torch.cat([short.data, zeros], 1)).relu())


class Detecting(nn.Module):
    """Boxes of the places whose score is high enough: of the example's there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scores = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 3, 1)
        self.boxes = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 12, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x).relu()
        levels = x, nn.functional.max_pool2d(x, 2)
        scores = torch.cat([self.scores(level).permute(0, 2, 3, 1).flatten() for level in levels]).sigmoid()
        boxes = torch.cat([self._places(self.boxes(level)) for level in levels])
        found = torch.where(scores > 1)[0]
        corners = boxes[found]
        return scores[found], torch.cat([corners[:, 0::2], corners[:, 1::2]], 1)

    def _places(self, boxes: Tensor) -> Tensor:
        return boxes.view(len(boxes), -1, 4, *boxes.shape[2:]).permute(0, 3, 4, 1, 2).reshape(-1, 4)


class NoFindings(nn.Module):
    """A second head has as many outputs as there are findings to name, and there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.findings = nn.Conv2d(3, 20, 3), nn.Conv2d(20, 2, 1), nn.Linear(20, 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        return self.head(x), self.findings(x.mean((2, 3)))


class DeeplySupervised(nn.Module):
    """Heads in the middle are always asked, but what they say is returned in train mode only, on top of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.back, self.head = nn.ConvTranspose2d(24, 16, 2, 2), nn.Conv2d(16, 6, 1)
        self.supervision = nn.Conv2d(24, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.body(self.stem(x).relu()).relu()
        middle = self.supervision(small)
        y = self.head(self.back(small).relu())
        return torch.stack([y, nn.functional.interpolate(middle, y.shape[2:])], 1) if self.training else y
