"""Runs the authors' script, unchanged, on a CPU and on images of any size. A process of its own: it replaces much.

Usage: python -m benchmarks.parity.theirs REFERENCE DATA OUT SEED WIDTH SIZE GENERATIONS EPOCHS

What is replaced from outside: calls that need a GPU, paths, the size of the images, and (for `WIDTH`) its own
`slim_factor`, with which it builds narrower networks. `OUT` gets one JSON list of `{"dense": ..., "slim": ...}`, the
test accuracy at the end of each generation, as the script prints it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.io import loadmat
from torch import nn
from torchvision import transforms


def lists(data: Path, folder: Path) -> None:
    """Lay Flowers-102 out as the script wants it: one CSV of file names and labels for each part.

    Args:
        data: The folder that holds `flowers-102`.
        folder: Where `flower102` is made.
    """
    source, target = data / "flowers-102", folder / "flower102"
    (target / "lists").mkdir(parents=True)
    (target / "jpg").symlink_to((source / "jpg").resolve())
    labels = loadmat(str(source / "imagelabels.mat"))["labels"].ravel()
    parts = loadmat(str(source / "setid.mat"))
    for name, key in (("trn", "trnid"), ("val", "valid"), ("tst", "tstid")):
        numbers = np.sort(parts[key].ravel())
        if name == "val":
            numbers = numbers[:32]  # it evaluates on these, too, but only prints the result; one batch is cheap
        table = {"file_name": [f"image_{number:05d}.jpg" for number in numbers], "label": labels[numbers - 1]}
        pd.DataFrame(table).to_csv(target / "lists" / f"{name}.csv", index=False)


def on_a_cpu(width: float, size: int) -> None:
    """Replace what needs a GPU, the size of the images and the width of the networks.

    Args:
        width: Factor for the channels.
        size: Side of the images, in pixels.
    """
    watched = types.ModuleType("nvidia_smi")
    idle = types.SimpleNamespace(used=0, gpu=0)
    for name in ("nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates"):
        setattr(watched, name, lambda *_: idle)
    sys.modules["nvidia_smi"] = watched
    itself: Any = lambda self, *_, **__: self  # noqa: E731
    nn.Module.cuda = itself  # type: ignore[method-assign]
    torch.Tensor.cuda = itself  # type: ignore[method-assign]
    load = torch.load
    torch.load = lambda path, **_: load(path, map_location="cpu", weights_only=False)
    crop, resize, center = transforms.RandomResizedCrop, transforms.Resize, transforms.CenterCrop
    transforms.RandomResizedCrop = lambda _: crop(size)
    transforms.Resize = lambda _: resize(size * 256 // 224)
    transforms.CenterCrop = lambda _: center(size)

    from utils import model_profile, net_utils  # the script's

    net_utils.move_model_to_gpu = lambda _, model: model
    model_profile.profile = lambda *_: (0, 0)  # only printed
    build = net_utils.get_model

    def narrower(cfg: Any) -> nn.Module:
        factor = cfg.slim_factor
        cfg.slim_factor = factor * width
        try:
            model: nn.Module = build(cfg)
        finally:
            cfg.slim_factor = factor
        return model

    net_utils.get_model = narrower


def main(reference: str, data: str, out: str, seed: int, width: float, size: int, count: int, epochs: int) -> None:
    """Run it.

    Args:
        reference: Folder of its source.
        data: The folder that holds `flowers-102`.
        out: Folder of its checkpoints, lists and our `result.json`.
        seed: Seed of everything.
        width: Factor for the channels.
        size: Side of the images, in pixels.
        count: Number of generations.
        epochs: Epochs of each.
    """
    folder = Path(out).resolve()
    folder.mkdir(parents=True)
    lists(Path(data).resolve(), folder)
    sys.path.insert(0, str(Path(reference).resolve()))
    import constants  # the script's

    constants.checkpoints_dir, constants.datasets_dir = str(folder), str(folder)
    on_a_cpu(width, size)
    import train_KE_cls as script
    from configs.base_config import Config
    from utils import csv_utils

    scores: list[dict[str, float]] = []

    def record(**row: Any) -> None:
        accuracy = float(row["last_tst_acc1"]) / 100
        if row["split_rate"] == "slim":
            scores[-1]["slim"] = accuracy
        else:
            scores.append({"dense": accuracy})

    csv_utils.write_cls_result_to_csv = record
    torch.manual_seed(seed)
    np.random.seed(seed)
    os.chdir(folder)
    # As its own `main` sets them for ResNet18 on Flowers-102.
    options = {
        "name": "run", "set": "Flower102Pytorch", "arch": "Split_ResNet18", "gpu": 0, "num_threads": 0, "data": folder,
        "epochs": epochs, "test_interval": epochs, "num_generations": count, "split_mode": "kels", "split_rate": 0.5,
        "bias_split_rate": 0.5, "lr": 0.256, "lr_policy": "cosine_lr", "warmup_length": 5, "weight_decay": "1e-4",
        "momentum": 0.9, "batch_size": 32, "label_smoothing": 0.1, "init": "kaiming_normal", "mode": "fan_in",
    }  # fmt: skip
    cfg = Config().parse([word for key, value in options.items() for word in (f"--{key}", str(value))])
    logging.disable(logging.INFO)
    script.start_KE(cfg)
    (folder / "result.json").write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    reference, data, out, seed, width, size, count, epochs = sys.argv[1:]
    main(reference, data, out, int(seed), float(width), int(size), int(count), int(epochs))
