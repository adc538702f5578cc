"""Held-out shares, few images of each class, wrong labels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_ke.data import EmbeddedDataModule
from lightning_ke.data.selection import few_of_each, hold_out, wrong_labels

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda half: torch.tensor(half * 2))
SEEDS = st.integers(0, 2**31)


@given(labels=LABELS, share=st.floats(0.01, 0.99), seed=SEEDS)
def test_the_same_share_of_every_class_is_held_out(labels, share, seed):
    stays, out = hold_out(labels, share, seed)
    assert sorted([*stays.tolist(), *out.tolist()]) == list(range(len(labels)))
    for label in labels.unique():
        count, held = int((labels == label).sum()), int((labels[out] == label).sum())
        assert 1 <= held < count
        assert abs(held - share * count) <= 1
    assert all(torch.equal(a, b) for a, b in zip((stays, out), hold_out(labels, share, seed), strict=True))


@given(labels=LABELS, seed=SEEDS)
def test_few_of_each_class_and_more_hold_the_fewer(labels, seed):
    most = int(labels.bincount()[labels.unique()].min())
    smaller = set()
    for count in range(1, most + 1):
        chosen = few_of_each(labels, count, seed)
        assert (labels[chosen].bincount()[labels.unique()] == count).all()
        assert smaller <= set(chosen.tolist())
        smaller = set(chosen.tolist())


@given(labels=LABELS, share=st.floats(0, 0.99), seed=SEEDS)
def test_as_many_labels_as_asked_for_are_wrong_and_no_others(labels, share, seed):
    new, wrong = wrong_labels(labels, share, num_classes=5, seed=seed)
    assert (new != labels).nonzero().flatten().equal(wrong)
    assert len(wrong) == round(share * len(labels))
    assert ((new >= 0) & (new < 5)).all()


def test_wrong_labels_are_any_of_the_others_alike():
    new, _ = wrong_labels(torch.zeros(40_000, dtype=torch.int64), share=0.5, num_classes=5, seed=0)
    counts = new.bincount(minlength=5)
    assert counts[0] == 20_000
    assert (counts[1:] - 5_000).abs().max() < 300


def test_seeds_choose_differently():
    labels = torch.arange(100) % 4
    for choose in (lambda s: hold_out(labels, 0.2, s)[1], lambda s: few_of_each(labels, 5, s)):
        assert not torch.equal(choose(0), choose(1))
    assert not torch.equal(wrong_labels(labels, 0.2, 4, 0)[0], wrong_labels(labels, 0.2, 4, 1)[0])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: hold_out(torch.tensor([0, 0, 1]), 0.1, 0), "at least 2 images of each class .* class 1 has 1"),
        (lambda: hold_out(torch.tensor([0, 0]), 1.0, 0), r"to be in \(0, 1\), but got 1.0"),
        (lambda: wrong_labels(torch.tensor([0, 0]), 0.5, 1, 0), "at least 2 classes .*, but there are 1"),
        (lambda: few_of_each(torch.tensor([0, 0, 1]), 2, 0), "`per_class` to be at most .* 1 of class 1, but got 2"),
    ],
)
def test_what_cannot_be_chosen_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def labels_in_training(**options):
    data = EmbeddedDataModule(batch_size=50, **options)
    data.setup("fit")
    order = torch.cat([labels for _, labels in data.train_dataloader()])
    return data, data._sets["train"].labels, order


@pytest.mark.parametrize("num_workers", [0, 2])
def test_label_noise_is_in_the_training_labels_only_whatever_the_workers(num_workers):
    clean, labels, _ = labels_in_training()
    data, noisy, order = labels_in_training(label_noise=0.2, num_workers=num_workers, seed=5)
    wrong = (labels != noisy).nonzero().flatten()
    assert len(wrong) == 200
    assert wrong.equal(data.wrong_labels)
    assert wrong.equal(labels_in_training(label_noise=0.2, seed=5)[0].wrong_labels)
    assert sorted(order.tolist()) == sorted(noisy.tolist())
    assert data._sets["val"].labels.equal(clean._sets["val"].labels)


def test_noise_and_images_stay_together():
    """With few images of each class, too: an image's wrong label is its own in each epoch."""
    data, labels, _ = labels_in_training(per_class=5, label_noise=0.3)
    assert len(labels) == 50
    assert len(data.wrong_labels) == 15
    clean = EmbeddedDataModule(per_class=5)
    clean.setup("fit")
    assert (clean._sets["train"].labels.bincount() == 5).all()
    same = zip(clean._sets["train"].images, data._sets["train"].images, strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label_noise": 1.0}, r"Expected argument `label_noise` to be in \[0, 1\), but got 1.0"),
        ({"label_noise": -0.1}, r"Expected argument `label_noise` to be in \[0, 1\)"),
        ({"per_class": 0}, "Expected argument `per_class` to be a whole number of at least 1"),
        ({"seed": -1}, "Expected argument `seed` to be"),
        ({"padding": -1}, "Expected argument `padding` to be"),
        ({"num_workers": -1}, "Expected argument `num_workers` to be"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        EmbeddedDataModule(**options)
