"""Layers of labels: reshaping one without unfolding it is reshaping it in full."""

from __future__ import annotations

import math
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ke.flow.labels import Layer, distinct_rows, reshaped

SIZES = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4)


def split_or_merge(sizes: list[int], choices: random.Random) -> list[int]:
    """Another shape of as many entries: neighbours merged, sizes divided, ones put in."""
    sizes = list(sizes)
    for _ in range(3):
        at = choices.randrange(len(sizes))
        kind = choices.choice(["merge", "divide", "one"])
        if kind == "merge" and at + 1 < len(sizes):
            sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
        elif kind == "divide":
            factor = choices.choice([f for f in range(1, sizes[at] + 1) if sizes[at] % f == 0])
            sizes[at : at + 1] = [factor, sizes[at] // factor]
        elif kind == "one":
            sizes.insert(at, 1)
    return sizes


@settings(max_examples=200, deadline=None)
@given(SIZES, st.integers(0, 2**32))
def test_a_layer_is_reshaped_like_the_tensor(before: list[int], seed: int) -> None:
    choices = random.Random(seed)
    after = split_or_merge(before, choices)
    shape = tuple(size if choices.random() < 0.5 else 1 for size in before)
    variables = range(5, 5 + math.prod(shape))
    one_dim = max(shape) == len(variables)
    layer = Layer(variables if one_dim else np.array(variables, dtype=np.int32).reshape(shape), shape)
    found = reshaped(layer, before, after)
    expected = np.broadcast_to(layer.array, before).reshape(after)
    assert np.array_equal(np.broadcast_to(found.array, after), expected)
    assert found.size <= max(layer.size, math.prod(after))
    assert found.array.shape == found.shape
    # A dimension without channels has one entry.
    for dim, size in enumerate(found.shape):
        assert size == 1 or not (found.array == found.array.take([0], dim)).all()
    assert found.dims == tuple(dim for dim, size in enumerate(found.shape) if size > 1)


def test_repeated_rows_appear_once() -> None:
    rows = np.array([[4, 5], [1, 2], [4, 5], [1, 2], [7, 8]])
    assert distinct_rows(rows).tolist() == [[4, 5], [1, 2], [7, 8]]


def test_rows_that_begin_alike_stay() -> None:
    rows = np.array([[4, 5], [4, 6], [4, 5]])
    assert distinct_rows(rows).tolist() == rows.tolist()
