"""Joining channel variables."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lightning_ke.flow.variables import PINNED, Channels, Variables, as_array, as_rows, read


def _classes_by_hand(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    smallest = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    return smallest


def _pairs(count: int) -> st.SearchStrategy[tuple[int, list[tuple[int, int]]]]:
    member = st.integers(0, count)
    return st.tuples(st.just(count), st.lists(st.tuples(member, member)))


@given(st.integers(1, 30).flatmap(_pairs))
def test_roots_are_the_smallest_member_of_each_class(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = case
    variables = Variables()
    variables.new(count)
    for a, b in pairs:
        variables.join(np.array([a]), np.array([b]))
    assert variables.roots().tolist() == _classes_by_hand(count + 1, pairs)


def test_join_broadcasts() -> None:
    variables = Variables()
    rows = as_rows(variables.new(6), 2)
    variables.join(rows, rows[:1])
    assert variables.roots()[rows].tolist() == [[1, 2, 3], [1, 2, 3]]


def test_pinned_variables_share_the_pinned_root() -> None:
    variables = Variables()
    chain = variables.new(3)
    variables.join(chain[:-1], chain[1:])
    assert read(variables.roots(), chain).tolist() == [1, 1, 1]
    variables.pin(chain[2:])
    assert read(variables.roots(), chain).tolist() == [PINNED] * 3


def test_forget_since_undoes_later_joins_only() -> None:
    variables = Variables()
    a = variables.new(3)
    variables.join(a[:1], a[1:2])
    mark = variables.mark()
    variables.pin(a)
    variables.forget_since(mark)
    assert read(variables.roots(), a).tolist() == [1, 1, 3]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 3), st.sampled_from(["in order", "reversed", "rows", "part", "pin"])
        )
    )
)
def test_whole_runs_are_joined_as_their_members(joins: list[tuple[int, int, str]]) -> None:
    variables = Variables()
    runs = [variables.new(6) for _ in range(4)]
    pairs: list[tuple[int, int]] = []
    for left, right, how in joins:
        one: Channels = runs[left]
        other: Channels = runs[right]
        if how == "reversed":
            other = as_array(other)[::-1]
        elif how == "rows":
            one, other = as_rows(one, 2), as_rows(other, 2)[:1]
        elif how == "part":
            one, other = one[1:4], other[3:]
        if how == "pin":
            variables.pin(one)
            other = np.array(PINNED)
        else:
            variables.join(one, other)
        pairs += zip(
            *(side.flatten().tolist() for side in np.broadcast_arrays(as_array(one), as_array(other))), strict=True
        )
    assert variables.roots().tolist() == _classes_by_hand(25, pairs)


def test_a_forgotten_definition_makes_room_for_another() -> None:
    variables = Variables()
    a, b = variables.new(3), variables.new(3)
    mark = variables.mark()
    variables.join(a, b)
    assert read(variables.roots(), b).tolist() == [1, 2, 3]
    variables.forget_since(mark)
    variables.join(b, as_array(a)[::-1])
    assert read(variables.roots(), b).tolist() == [3, 2, 1]
