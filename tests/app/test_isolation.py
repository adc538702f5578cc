"""What a run changes for its whole process is taken back, also when it fails."""

import os
import random
import warnings

import numpy as np
import pytest
import torch

from lightning_ke.app.isolation import isolated
from tests.conftest import _world


def numbers():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_everything_global_is_as_before(monkeypatch):
    monkeypatch.setenv("KE_TEST_CHANGED", "before")
    before, filters, state = _world(), list(warnings.filters), torch.get_rng_state()
    random.seed(5)
    np.random.seed(5)
    with pytest.raises(ZeroDivisionError), isolated():
        disturb()
    after = numbers()
    random.seed(5)
    np.random.seed(5)
    torch.set_rng_state(state)
    assert numbers() == after
    assert _world() == before
    assert warnings.filters == filters


def disturb():
    os.environ["KE_TEST_NEW"] = os.environ["KE_TEST_CHANGED"] = "within"
    numbers()
    warnings.filterwarnings("ignore", message="something")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    1 / 0  # noqa: B018  # a debugged run that fails must put all of it back
