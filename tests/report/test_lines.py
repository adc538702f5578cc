"""Which runs are one line, what a line is called, and what it is compared with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ke.report.lines import Spread, lines_of
from lightning_ke.report.runs import Run
from tests.report.folders import config_of, history_of


def run_of(name="run", **settings):
    config = config_of(**settings)
    return Run(Path(name), name, "finished", config=config, history=history_of(config))


def test_runs_that_differ_in_the_seed_alone_are_one_line():
    lines = lines_of([run_of(seed=0), run_of(seed=1), run_of(seed=0, rate=0.8)])
    assert [(line.label, len(line.runs)) for line in lines] == [("rate 0.5", 2), ("rate 0.8", 1)]


@given(st.lists(st.tuples(st.sampled_from([0.3, 0.5]), st.sampled_from([0.1, 0.2]), st.integers(0, 3)), min_size=1))
def test_lines_partition_the_runs_whatever_their_order(settings):
    runs = [run_of(str(n), rate=rate, seed=seed, optimizer__lr=lr) for n, (rate, lr, seed) in enumerate(settings)]
    lines = lines_of(runs)
    assert sorted(int(run.name) for line in lines for run in line.runs) == list(range(len(runs)))
    assert len(lines) == len({(rate, lr) for rate, lr, _ in settings}) == len({line.label for line in lines})
    backwards = {frozenset(run.name for run in line.runs) for line in lines_of(runs[::-1])}
    assert backwards == {frozenset(run.name for run in line.runs) for line in lines}


@pytest.mark.parametrize("order", [1, -1])
def test_a_part_whose_seed_is_a_constant_does_not_part_the_runs(order):
    """The data's seed is 0 by default: the run of seed 0 is like those of the other seeds."""
    runs = [run_of(seed=seed, rate=rate, datamodule__seed=0) for rate in (0.5, 0.8) for seed in (0, 1, 2)]
    lines = lines_of([*runs, run_of(seed=0, count=1, epochs=6, datamodule__seed=0)][::order])
    assert {(line.label, len(line.runs)) for line in lines} == {("rate 0.5", 3), ("rate 0.8", 3), ("long baseline", 1)}


def test_seeds_of_a_part_that_are_swept_are_lines_of_their_own():
    settings = [(seed, data) for data in (0, 1) for seed in (0, 1)]
    lines = lines_of([run_of(seed=seed, datamodule__seed=data) for seed, data in settings])
    assert [(line.label, len(line.runs)) for line in lines] == [("datamodule.seed 0", 2), ("datamodule.seed 1", 2)]


def test_a_seed_of_its_own_makes_another_line():
    lines = lines_of([run_of(seed=0), run_of(seed=1, datamodule__seed=7)])
    assert len(lines) == 2


def test_lines_are_named_by_the_fewest_settings():
    runs = [run_of(rate=rate, epochs=round(10 * rate), optimizer__lr=lr) for rate in (0.3, 0.5) for lr in (0.1, 0.2)]
    assert [line.label for line in lines_of(runs)] == [
        "rate 0.3, lr 0.1",
        "rate 0.3, lr 0.2",
        "rate 0.5, lr 0.1",
        "rate 0.5, lr 0.2",
    ]


def test_a_run_alone_is_named_by_its_folder():
    assert [line.label for line in lines_of([run_of("mine")])] == ["mine"]


def test_runs_without_a_configuration_are_lines_of_their_own():
    lines = lines_of([Run(Path("a"), "a", "unreadable"), Run(Path("b"), "b", "unreadable"), run_of("c")])
    assert [line.label for line in lines[:2]] == ["a", "b"]


def test_the_long_baseline_has_as_many_epochs_and_the_same_settings():
    lines = lines_of(
        [
            run_of(count=1, epochs=6, rate=0.3),
            run_of(count=1, epochs=6, backbone__width=0.25),
            run_of(count=1, epochs=5),
            run_of(count=3, epochs=2),
        ]
    )
    evolving, *baselines = lines
    assert [line.baseline for line in lines] == [False, True, True, True]
    assert evolving.long_baseline is baselines[0]
    assert baselines[0].label == "long baseline"
    assert "width 0.25" in baselines[1].label
    assert evolving.epochs == 6


def test_the_long_baseline_of_the_same_split_is_preferred():
    lines = lines_of([run_of(count=1, epochs=6, rate=rate) for rate in (0.3, 0.5)] + [run_of(rate=0.5)])
    assert lines[0].long_baseline.rate == 0.5


def test_runs_of_one_generation_alone_are_no_baselines():
    lines = lines_of([run_of(count=1, rate=0.3), run_of(count=1, rate=0.5)])
    assert [line.baseline for line in lines] == [False, False]


@pytest.mark.parametrize(
    ("generations", "count", "epochs"),
    [
        ({"count": 3, "epochs": 2}, 3, 6),
        ({"count": None, "epochs": [1, 2, 4]}, 3, 7),
        ({"count": None, "epochs": None}, 3, 6),
    ],
)
def test_the_length_is_that_of_the_plan_or_of_the_history(generations, count, epochs):
    run = run_of()
    run.config["generations"] = generations
    (line,) = lines_of([run])
    assert (line.generations, line.epochs) == (count, epochs)


def test_of_two_finished_runs_of_one_seed_the_first_counts():
    runs = [run_of("a", seed=0), run_of("b", seed=1), run_of("c", seed=0)]
    (line,) = lines_of(runs)
    assert line.last("dense", "val_acc").count == 2
    assert [line.repeated(run) for run in runs] == [None, None, runs[0]]


def test_an_attempt_that_failed_does_not_stand_in_the_way_of_the_one_that_did_not():
    failed, again = run_of("a", seed=0), run_of("b", seed=0)
    failed.state = "failed"
    (line,) = lines_of([failed, again])
    assert line.finished == [again]
    assert [line.repeated(run) for run in line.runs] == [None, None]


def test_only_finished_runs_count():
    failed = run_of(seed=1)
    failed.state, failed.history = "failed", failed.history[:1]
    (line,) = lines_of([run_of(seed=0), failed])
    assert line.last("dense", "val_acc") == Spread(0.63, 0.63, 0.63, 1)
    assert line.last("dense", "unknown") is None
