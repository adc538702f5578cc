"""The paper's table and the Pareto front."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ke.report.lines import lines_of
from lightning_ke.report.page import summary_table
from lightning_ke.report.runs import read_runs
from lightning_ke.report.summary import metric_of_tests, pareto_front, summarise
from tests.report.folders import write_run, write_sweep


def test_figures_are_those_of_the_runs(tmp_path):
    lines = lines_of(read_runs(write_sweep(tmp_path)))
    tested = metric_of_tests(lines, "val_acc")
    assert tested == "test_acc"
    entries = summarise(lines, "val_acc", tested)
    dense, slim = (e for e in entries if e.line.label == "rate 0.8" and e.generation == 3)
    assert (dense.network, dense.score.count) == ("dense", 2)  # the third one is running
    assert dense.score.mean == pytest.approx((0.68 + 0.69) / 2 + 0.03)
    assert dense.gain == pytest.approx(0.02)
    assert dense.gain_over_long == pytest.approx(0.685 + 0.03 - (0.665 + 0.01))
    assert dense.tested_over_long == pytest.approx(0.02)
    assert slim.saved == pytest.approx(0.64 - 1)
    assert slim.gain == pytest.approx(0.015)
    assert (slim.operations, slim.parameters) == (640, 320)
    assert [(e.network, e.generation) for e in entries if e.line.baseline] == [("dense", 1)]
    assert not any("failed" in run.state for e in entries for run in e.line.finished)


def test_the_table_says_it_all(tmp_path):
    lines = lines_of(read_runs(write_sweep(tmp_path)))
    table = summary_table(summarise(lines, "val_acc", "test_acc"), "val_acc", "test_acc")
    row = next(row for row in table.rows if row[1] == "slim N3")
    assert row[2:] == [
        "2",
        "0.6600 (0.6550-0.6650)",
        "+0.0150",
        "-0.0150",
        "0.6500 (0.6450-0.6550)",
        "-0.0350",
        "90 (-91.0 %)",
        "45",
    ]


def test_a_fit_hypothesis_that_is_no_network_of_its_own_is_not_called_one(tmp_path):
    lines = lines_of(read_runs(write_run(tmp_path / "run")))
    del lines[0].runs[0].networks["slim"]
    *_, fit = summarise(lines, "val_acc", "test_acc")
    assert (fit.network, fit.operations, fit.tested) == ("fit", None, None)
    assert fit.score.mean == pytest.approx(0.625)


def test_without_test_scores_the_score_that_chose_is_compared(tmp_path):
    lines = lines_of(read_runs(write_run(tmp_path / "run")))
    del lines[0].runs[0].networks["dense"]["test_acc"]
    assert metric_of_tests(lines, "val_acc") == "val_acc"


POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS, st.sampled_from(["max", "min"]))
def test_the_front_is_what_nothing_beats(points, mode):
    sign = 1 if mode == "max" else -1

    def beats(one, other):
        return one != other and one[0] <= other[0] and sign * one[1] >= sign * other[1]

    front = [points[index] for index in pareto_front(points, mode)]
    assert set(front) == {point for point in points if not any(beats(other, point) for other in points)}
    assert front == sorted(set(front))
