"""Random numbers that depend on a key alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lightning_ke
from lightning_ke.keyed_rng import forked_rng, keyed_generator, stable_seed

KEYS = st.lists(st.integers() | st.text(max_size=5), max_size=4).map(tuple)


@given(first=KEYS, second=KEYS)
def test_different_keys_have_different_seeds(first: tuple[int | str, ...], second: tuple[int | str, ...]) -> None:
    assert (stable_seed(*first) == stable_seed(*second)) == (first == second)
    assert 0 <= stable_seed(*first) < 2**63


def test_a_seed_is_the_same_in_every_process() -> None:
    script = "from lightning_ke.keyed_rng import stable_seed; print(stable_seed(3, 'conv.weight'))"
    for hash_seed in ("1", "2"):
        # Each test has a folder of its own, from which a tree that is not installed is not found.
        path = str(Path(lightning_ke.__file__).parents[1])
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        assert int(run.stdout) == stable_seed(3, "conv.weight")


def test_generators_of_one_key_agree() -> None:
    first, second, other = (torch.rand(4, generator=keyed_generator(*key)) for key in ((0, "a"), (0, "a"), (1, "a")))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def draw_everywhere() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), float(np.random.rand())


def test_lent_streams_are_seeded_by_the_key_and_given_back() -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    with forked_rng() as seed_by:
        seed_by(0, "a")
        first = draw_everywhere()
        seed_by(0, "b")
        other = draw_everywhere()
        seed_by(0, "a")
        again = draw_everywhere()
    assert first == again
    assert not set(first) & set(other)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()


def test_streams_are_given_back_after_an_error() -> None:
    def fail() -> None:
        with forked_rng() as seed_by:
            seed_by(1)
            raise KeyError

    state = torch.get_rng_state()
    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
