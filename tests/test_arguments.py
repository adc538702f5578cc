"""Checks of plain arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ke.arguments import whole, whole_or_none
from lightning_ke.data import TextDataModule
from lightning_ke.endings import FixedLength, Overfit
from lightning_ke.phases import Sparse
from lightning_ke.splits import Kels


@given(st.integers(0, 127), st.sampled_from([int, np.int8, np.uint16, np.int64]))
def test_whole_numbers_of_any_kind_become_those_of_python(number: int, kind: type) -> None:
    for checked in (whole("seed", kind(number), least=0), whole_or_none("seed", kind(number), least=0)):
        assert type(checked) is int
        assert checked == number


@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float64(2), "2", -1, np.int64(-1), [2]])
def test_anything_else_is_refused(value: object) -> None:
    for check in (whole, whole_or_none):
        with pytest.raises(ValueError, match=r"Expected argument `seed` to be a whole number of at least 0.*, but got"):
            check("seed", value, 0)


def test_none_is_allowed_only_where_it_says_so() -> None:
    assert whole_or_none("seed", None, least=0) is None
    with pytest.raises(ValueError, match="at least 0, but got None"):
        whole("seed", None, least=0)


def test_what_is_built_with_numpy_holds_numbers_of_python() -> None:
    three = np.int64(3)
    built = [
        (FixedLength([three, three]), {"epochs": (3, 3)}),  # type: ignore[list-item]
        (Overfit(patience=three, least=three, most=three), {"patience": 3, "least": 3, "most": 3}),  # type: ignore[arg-type]
        (Sparse(first_generation=three), {"first_generation": 3}),  # type: ignore[arg-type]
        (Kels(round_to=three), {"round_to": 3}),  # type: ignore[arg-type]
        (TextDataModule("text.txt", length=three, num_workers=three), {"length": 3, "num_workers": 3}),  # type: ignore[arg-type]
    ]
    for thing, expected in built:
        for name, number in expected.items():
            found = getattr(thing, name)
            assert repr(found) == repr(number), f"{type(thing).__name__}.{name}"
