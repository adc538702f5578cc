"""Slim networks on disk: what comes back is what was saved, from nothing but the dense network's class."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from lightning.pytorch import LightningModule
from safetensors import safe_open
from torch import Tensor, nn

import lightning_ke as ke
from lightning_ke import naming
from lightning_ke.slim.files import read_metadata
from tests.app.commands import python
from tests.flow.networks import NETWORKS
from tests.slim.conftest import IMAGE, Small

PARAMETRISED = ("weight norm", "weight norm as a hook", "spectral norm")  # refused by `draw_mask`


def encoder() -> nn.Module:
    """A vision transformer of torchvision's, small."""
    return torchvision.models.VisionTransformer(32, 8, 2, 4, 24, 40, num_classes=7)


def numbers(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Every number that a network's modules hold, whatever their mode."""

    def plain(value: object) -> bool:
        if isinstance(value, (tuple, list)):
            return all(map(plain, value))
        return isinstance(value, (bool, int, float, str, type(None)))

    ignored = ("training", "_is_torch_compile")
    return {
        name: {key: value for key, value in vars(module).items() if plain(value) and key not in ignored}
        for name, module in naming.named_modules(network)
    }


def there_and_back(
    slim: nn.Module, mask: ke.Mask, build: Callable[[], nn.Module], folder: Path, **options: Any
) -> nn.Module:
    ke.save_slim(slim, folder / "slim.safetensors", mask, **options)
    return ke.load_slim(folder / "slim.safetensors", build)


@pytest.mark.skipif(os.name != "posix", reason="file permissions are POSIX's")
def test_a_slim_file_has_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    """Safetensors gives its own to nobody else since 0.8."""
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    mask = ke.draw_mask(network, "kels", rate=0.5, example_input=torch.zeros(1, 3))
    ke.save_slim(ke.extract_slim(network, mask), tmp_path / "slim.safetensors", mask)
    (tmp_path / "plain").touch()
    assert (tmp_path / "slim.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def assert_same(loaded: nn.Module, saved: nn.Module) -> None:
    ours, theirs = (dict((*naming.named_parameters(n), *naming.named_buffers(n))) for n in (loaded, saved))
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name
    assert numbers(loaded) == numbers(saved)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in PARAMETRISED])
def test_every_kind_of_network_comes_back(name: str, tmp_path: Path) -> None:
    build, args = NETWORKS[name]
    dense = build().eval()
    mask = ke.draw_mask(dense, rate=0.5, example_input=args)
    slim = ke.extract_slim(dense, mask, verify=False)
    loaded = there_and_back(slim, mask, build, tmp_path).eval()
    assert_same(loaded, slim)
    with torch.no_grad():
        assert torch.allclose(loaded(*args), slim(*args), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [0.3, 0.8])
@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "mobilenet_v3_small", "vit"])
def test_networks_of_torchvision_come_back(name: str, rate: float, tmp_path: Path) -> None:
    def build() -> nn.Module:
        return encoder() if name == "vit" else torchvision.models.get_model(name, num_classes=7)

    dense = build().eval()
    mask = ke.draw_mask(dense, rate=rate, example_input=IMAGE)
    slim = ke.extract_slim(dense, mask, verify=False)
    loaded = there_and_back(slim, mask, build, tmp_path).eval()
    assert_same(loaded, slim)
    with torch.no_grad():
        assert torch.allclose(loaded(IMAGE), slim(IMAGE), rtol=1e-5, atol=1e-6)


def test_folded_scales_of_attention_come_back(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm, of the extra `timm`, is not installed")

    def build() -> nn.Module:
        return timm.models.VisionTransformer(32, 8, 3, 5, embed_dim=24, depth=2, num_heads=3)

    dense = build().eval()
    mask = ke.draw_mask(dense, rate=0.5, example_input=IMAGE)
    assert mask.structure is not None
    slim = ke.extract_slim(dense, mask, verify=False)
    loaded = there_and_back(slim, mask, build, tmp_path).eval()
    assert_same(loaded, slim)
    with torch.no_grad():
        assert torch.allclose(loaded(IMAGE), slim(IMAGE), rtol=1e-5, atol=1e-6)


def test_chosen_channels_come_back(tmp_path: Path) -> None:
    """Channels that are not the first of each layer."""
    dense = Small(16)
    mask = ke.draw_mask(dense, "importance", rate=0.4, example_input=IMAGE)
    assert mask.structure is not None
    assert any(axis.kept.tolist() != list(range(len(axis.kept))) for axis in mask.structure.axes)
    slim = ke.extract_slim(dense, mask)
    assert_same(there_and_back(slim, mask, lambda: Small(16), tmp_path), slim)


def test_statistics_ties_and_buffers_come_back(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    loaded = there_and_back(slim, mask, Small, tmp_path)
    assert_same(loaded, slim)
    assert loaded.two.weight is loaded.one.weight
    assert loaded.norm.num_batches_tracked == 7
    assert loaded.gain.tolist() == Small().gain[:4].tolist()
    assert loaded.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_precision_comes_back(small: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    slim, mask = small
    slim.to(dtype)
    slim.norm.float()  # as mixed precision leaves it
    loaded = there_and_back(slim, mask, Small, tmp_path)
    assert_same(loaded, slim)
    assert (loaded.stem.weight.dtype, loaded.norm.weight.dtype, loaded.gain.dtype) == (dtype, torch.float32, dtype)


def test_tensors_that_are_not_contiguous_or_share_memory_come_back(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    slim.to(memory_format=torch.channels_last)
    shared = torch.randn(8)
    slim.stem.bias.data, slim.norm.bias.data = shared[::2], shared[:4]
    assert not slim.stem.weight.is_contiguous()
    assert_same(there_and_back(slim, mask, Small, tmp_path), slim)


def test_a_network_on_the_meta_device_is_filled(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Embedding(9, 8), nn.LSTM(8, 6, batch_first=True))

    def build_without_memory() -> nn.Module:
        with torch.device("meta"):
            return build()

    dense, tokens = build(), torch.zeros(1, 3, dtype=torch.long)
    mask = ke.draw_mask(dense, rate=0.5, example_input=tokens)
    slim = ke.extract_slim(dense, mask)
    loaded = there_and_back(slim, mask, build_without_memory, tmp_path)
    assert_same(loaded, slim)
    assert torch.allclose(loaded(tokens)[0], slim(tokens)[0])
    loaded(tokens)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_files_do_not_depend_on_the_default_device(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

    dense = build()
    mask = ke.draw_mask(dense, rate=0.5, example_input=torch.zeros(1, 3))
    slim = ke.extract_slim(dense, mask)
    with torch.device("meta"):  # stands for a GPU
        ke.save_slim(slim, tmp_path / "slim.safetensors", mask)
        loaded = ke.load_slim(tmp_path / "slim.safetensors", build)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in slim.state_dict().items())


def test_ties_hold_on_the_meta_device_and_values_outside_of_the_file_are_asked_for(small: Any, tmp_path: Path) -> None:
    slim, mask = small

    def build() -> nn.Module:
        with torch.device("meta"):
            network = Small()
        network.gain = torch.linspace(0.5, 1.5, 8)
        return network

    loaded = there_and_back(slim, mask, build, tmp_path)
    assert_same(loaded, slim)
    assert loaded.two.weight is loaded.one.weight

    def build_carelessly() -> nn.Module:
        with torch.device("meta"):
            return Small()

    with pytest.raises(ValueError, match=r"to fill `gain`, which no state_dict holds.*Build the network on the CPU"):
        ke.load_slim(tmp_path / "slim.safetensors", build_carelessly)


def test_a_part_of_a_lightning_module_is_saved_alone(tmp_path: Path) -> None:
    class Task(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Conv2d(3, 3, 1)
            self.net = torchvision.models.shufflenet_v2_x0_5(num_classes=5)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(self.before(x))

    task = Task().eval()
    mask = ke.draw_mask(task, rate=0.5, example_input=IMAGE)
    slim = ke.extract_slim(task, mask, verify=False)

    def build() -> nn.Module:
        return torchvision.models.shufflenet_v2_x0_5(num_classes=5)

    loaded = there_and_back(slim, mask, build, tmp_path, part="net")
    assert_same(loaded, slim.net)
    with pytest.raises(ValueError, match=r"there is no 'nett'\. The nearest names are 'net'"):
        ke.save_slim(slim, tmp_path / "other.safetensors", mask, part="nett")
    with pytest.raises(ValueError, match="`part` says which of its submodules to save"):
        ke.save_slim(slim.net, tmp_path / "other.safetensors", mask)


def test_a_part_whose_weight_another_part_owns(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.net = nn.Linear(3, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
            self.first.bias = self.net[0].bias

        def forward(self, x: Tensor) -> Tensor:
            return self.net(self.first(x).relu())

    dense = Tied()
    mask = ke.draw_mask(dense, rate=0.5, example_input=torch.zeros(1, 3))
    slim = ke.extract_slim(dense, mask)
    loaded = there_and_back(
        slim, mask, lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), tmp_path, part="net"
    )
    assert_same(loaded, slim.net)


def test_a_compiled_network_is_saved_under_plain_names(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    loaded = there_and_back(torch.compile(slim), mask, Small, tmp_path)
    assert_same(loaded, slim)


def test_the_file_is_an_ordinary_safetensors_file(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    path = tmp_path / "slim.safetensors"
    ke.save_slim(slim, path, mask, metadata={"mean": "0.5", "classes": "tench, goldfish"})
    tensors = safetensors.torch.load_file(path)
    state = slim.state_dict()
    del state["two.weight"]  # tied
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], value) for name, value in state.items())
    assert read_metadata(path) == {"mean": "0.5", "classes": "tench, goldfish"}
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_the_kept_channels_take_little_room(tmp_path: Path) -> None:
    dense = torchvision.models.resnet50()
    mask = ke.draw_mask(dense, rate=0.5, example_input=IMAGE)
    slim = ke.extract_slim(dense, mask, verify=False)
    ke.save_slim(slim, tmp_path / "slim.safetensors", mask)
    weights = sum(4 * tensor.numel() for tensor in slim.state_dict().values())
    assert (tmp_path / "slim.safetensors").stat().st_size < 1.002 * weights


def test_a_file_is_replaced_only_by_a_complete_one(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slim, mask = small
    path = tmp_path / "slim.safetensors"
    ke.save_slim(slim, path, mask)
    before = path.read_bytes()

    def fails(tensors: Any, name: str, metadata: Any) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", fails)
        with pytest.raises(OSError, match="disk full"):
            ke.save_slim(slim, path, mask)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["slim.safetensors"]
    with torch.no_grad():
        slim.head.bias.add_(1)
    ke.save_slim(slim, path, mask)
    assert_same(ke.load_slim(path, Small), slim)
    assert [item.name for item in tmp_path.iterdir()] == ["slim.safetensors"]


def test_random_streams_of_the_caller_are_used_by_the_factory_alone(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    ke.save_slim(slim, tmp_path / "slim.safetensors", mask)
    torch.manual_seed(0)
    Small()
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    ke.load_slim(tmp_path / "slim.safetensors", Small)
    assert torch.equal(torch.get_rng_state(), expected)


def test_another_process_needs_the_class_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))\n"
    )
    net: Any = runpy.run_path(str(tmp_path / "net.py"))["Net"]
    images = torch.randn(2, 3, 8, 8)
    dense = net()
    dense(images)  # moves the statistics
    mask = ke.draw_mask(dense, rate=0.5, example_input=images)
    slim = ke.extract_slim(dense, mask).eval()
    ke.save_slim(slim, tmp_path / "slim.safetensors", mask)
    torch.save({"images": images, "scores": slim(images).detach()}, tmp_path / "expected.pt")
    done = python(
        "import sys; sys.path.insert(0, '')\n"
        "import torch, lightning_ke as ke\n"
        "from net import Net\n"
        "slim = ke.load_slim('slim.safetensors', Net).eval()\n"
        "expected = torch.load('expected.pt')\n"
        "print(torch.allclose(slim(expected['images']), expected['scores'], atol=1e-6))\n",
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "True", done.stderr
