"""One run leaves nothing behind for the next one in the same process."""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch


@contextmanager
def isolated() -> Iterator[None]:
    """Take back, at the end, all that a run changes for its whole process.

    The environment, the random numbers, torch's threads, number format, matrix precision and switches of determinism,
    what was compiled, matplotlib's style and the filters of warnings are those of before; unused memory is given back.
    """
    environment = dict(os.environ)
    numbers = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    precision, grad = torch.get_float32_matmul_precision(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if "matplotlib" in sys.modules:
            stack.enter_context(sys.modules["matplotlib"].rc_context())
        try:
            yield
        finally:
            _restore_environment(environment)
            random.setstate(numbers[0])
            np.random.set_state(numbers[1])
            torch.set_rng_state(numbers[2])
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_float32_matmul_precision(precision)
            torch.set_grad_enabled(grad)
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
            if "torch._dynamo" in sys.modules:
                sys.modules["torch._dynamo"].reset()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _restore_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
