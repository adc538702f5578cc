"""What happens to images between memory and network."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from lightning_ke.data.images import CenterCrop, ImageSet, RandomCrop, ShiftCrop, as_is


def smooth_image(height, width):
    """Brightness grows to the right in red and downwards in green."""
    image = torch.zeros(height, width, 3)
    image[..., 0] = torch.linspace(0, 255, width)
    image[..., 1] = torch.linspace(0, 255, height)[:, None]
    return image.round().to(torch.uint8)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=8),
    low=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**31),
)
def test_every_box_lies_in_its_image(sizes, low, seed):
    torch.manual_seed(seed)
    sizes = torch.tensor(sizes)
    boxes = RandomCrop(8, scale=(low, 1.0)).boxes(sizes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= sizes).all()


def test_boxes_are_distributed_like_those_of_torchvision():
    torch.manual_seed(0)
    ours = RandomCrop(64).boxes(torch.tensor([[73, 110]]).expand(4000, 2)).float()
    reference = v2.RandomResizedCrop(64, antialias=True)
    image = torch.zeros(3, 73, 110)
    theirs = [reference.make_params([image]) for _ in range(4000)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in theirs]).float()
    assert torch.allclose(ours.mean(0), theirs.mean(0), atol=1.2)
    assert torch.allclose(ours.std(0), theirs.std(0), atol=1.2)


def test_each_image_of_a_batch_gets_its_own_crop_and_flip():
    torch.manual_seed(0)
    batch = RandomCrop(32)([smooth_image(80, 80)] * 64)
    assert len(batch.flatten(1).unique(dim=0)) == 64
    grows = batch[:, 0, 8, -1].int() > batch[:, 0, 8, 0].int()
    assert 0.3 < grows.float().mean() < 0.7
    upside_down = batch[:, 1, -1, 8].int() < batch[:, 1, 0, 8].int()
    assert not upside_down.any()


def test_without_flip_no_image_is_mirrored():
    torch.manual_seed(0)
    batch = RandomCrop(16, flip=False)([smooth_image(40, 40)] * 32)
    assert (batch[:, 0, 8, -1].int() > batch[:, 0, 8, 0].int()).all()


@pytest.mark.parametrize("flip", [True, False])
def test_shifted_images_are_windows_of_the_padded_one(flip):
    torch.manual_seed(0)
    image = torch.randint(1, 256, (6, 6, 3), dtype=torch.uint8)
    padded = torch.nn.functional.pad(image.permute(2, 0, 1), (2, 2, 2, 2))
    windows = {(y, x): padded[:, y : y + 6, x : x + 6] for y in range(5) for x in range(5)}
    seen = set()
    for cut in ShiftCrop(6, padding=2, flip=flip)([image] * 300):
        seen |= {(*key, 0) for key, window in windows.items() if torch.equal(cut, window)}
        seen |= {(*key, 1) for key, window in windows.items() if torch.equal(cut.flip(2), window)}
    assert seen == {(y, x, mirrored) for y in range(5) for x in range(5) for mirrored in range(1 + flip)}


@pytest.mark.parametrize("size", [(73, 110), (110, 73), (73, 73), (150, 91)])
def test_the_middle_is_that_of_torchvision(size):
    image = smooth_image(*size)
    ours = CenterCrop(64, resize=73)([image])[0].int()
    reference = v2.Compose([v2.Resize(73, antialias=True), v2.CenterCrop(64)])
    theirs = reference(image.permute(2, 0, 1)).int()
    assert (ours - theirs).abs().max() <= 4
    assert ours.shape == (3, 64, 64)


def test_batches_are_normalised():
    images = [torch.full((4, 4, 3), 255, dtype=torch.uint8), torch.zeros(4, 4, 3, dtype=torch.uint8)]
    dataset = ImageSet(images, torch.tensor([1, 0]), CenterCrop(4, 4), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    batch, labels = dataset.__getitems__([0, 1])
    assert torch.allclose(batch[0, :, 0, 0], torch.tensor([1.0, 3.0, 1.0]))
    assert torch.allclose(batch[1, :, 0, 0], torch.tensor([-1.0, -1.0, 0.0]))
    assert labels.tolist() == [1, 0]
    single, label = dataset[1]
    assert torch.equal(single, batch[1])
    assert label == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_rng_state_gives_the_same_epochs(num_workers):
    """Three epochs, and the last two again from the state in between."""
    images = [smooth_image(20, 30)] * 20
    dataset = ImageSet(images, torch.arange(20), RandomCrop(8), (0.5,) * 3, (0.5,) * 3)
    loader = DataLoader(dataset, batch_size=6, shuffle=True, collate_fn=as_is, num_workers=num_workers)
    list(loader)
    state = torch.get_rng_state()
    first = [list(loader), list(loader)]
    torch.set_rng_state(state)
    again = [list(loader), list(loader)]
    for epoch, repeated in zip(first, again, strict=True):
        for (x, y), (u, v) in zip(epoch, repeated, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    assert not torch.equal(first[0][0][0], first[1][0][0])
