"""The charts: what they show, and that Vega-Lite draws them without a warning."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ke.report.charts import charts_of
from lightning_ke.report.charts.epochs import boundaries, thin
from lightning_ke.report.lines import lines_of
from lightning_ke.report.page import picture
from lightning_ke.report.runs import read_runs
from tests.report.folders import write_run, write_sweep


def charts(folder, mode="max"):
    lines = lines_of(read_runs(folder))
    return {chart.name: chart for chart in charts_of(lines, "val_acc", "test_acc", mode)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return charts(write_sweep(tmp_path_factory.mktemp("sweep")))


def values(spec):
    data = spec["data"]["values"]
    return list(csv.DictReader(data.splitlines())) if isinstance(data, str) else data


def test_a_sweep_has_every_chart_and_vega_draws_them_without_a_warning(sweep, capfd):
    assert list(sweep) == ["generations", "rates", "costs", "mask", "loss", "lr"]
    for chart in sweep.values():
        image = picture(chart)
        assert image.startswith(b"\x89PNG")
        assert len(image) > 10_000
    assert "WARN" not in "".join(capfd.readouterr())


def test_generations_have_the_spread_over_seeds(sweep):
    rows = values(sweep["generations"].spec)
    (row,) = (r for r in rows if (r["line"], r["network"], r["generation"]) == ("rate 0.3", "dense network", 2))
    assert (row["mean"], row["low"], row["high"], row["runs"]) == (0.655, 0.65, 0.66, 2)
    # The failed run closed one generation, the running one two; both are seen.
    assert {r["generation"] for r in rows if r["line"] == "rate 0.9"} == {1}
    assert [r["runs"] for r in rows if (r["line"], r["network"]) == ("rate 0.8", "dense network")] == [3, 3, 2]


def test_generations_have_whole_numbers_on_their_axis(tmp_path):
    """And a learning rate that never changes is not shown as 0."""
    found = charts(write_run(tmp_path / "run", count=2))
    *_, points = (layer for layer in found["generations"].spec["layer"] if layer["mark"] != "line")
    assert points["encoding"]["x"]["axis"]["values"] == [1, 2]
    assert found["lr"].spec["layer"][1]["encoding"]["y"]["axis"]["format"] == "~g"


def test_baselines_are_dashed(sweep):
    *_, rule = sweep["generations"].spec["layer"]
    assert rule["mark"]["strokeDash"]
    assert [(row["line"], row["mean"]) for row in values(rule)] == [("long baseline", 0.675)]


def test_rates_are_those_of_finished_runs(sweep):
    rows = values(sweep["rates"].spec)
    assert {row["rate"] for row in rows} == {0.3, 0.8}
    assert {row["network"] for row in rows} == {"dense network", "fit hypothesis"}


def test_the_front_leads_from_the_cheapest_to_the_best(sweep):
    front, *_ = sweep["costs"].spec["layer"]
    points = [(row["operations"], row["mean"]) for row in values(front)]
    assert points == [(90, 0.65), (640, 0.7), (1000, 0.705)]


def test_each_mask_is_shown_once(sweep):
    spec = sweep["mask"].spec
    assert spec["params"][0]["bind"]["labels"] == ["rate 0.3", "rate 0.8", "long baseline"]
    rows = values(spec)
    assert len(rows) == 9
    row = next(row for row in rows if row["layer"] == "conv1" and row["m"] == "1")
    assert (row["shape"], row["entries"], row["fit"], row["share"]) == ("8 x 3 x 3 x 3", "224", "179", "0.7991")


def test_runs_are_chosen_by_line_and_seed(sweep):
    labels = sweep["loss"].spec["params"][0]["bind"]["labels"]
    assert labels[:2] == ["rate 0.3, seed 0", "rate 0.3, seed 1"]
    assert "long baseline, seed 1" in labels
    assert len(set(labels)) == len(labels) == 9


def test_generations_begin_where_the_epochs_of_the_earlier_ones_end(tmp_path):
    (run,) = read_runs(write_run(tmp_path / "run"))
    assert boundaries(run) == [0, 2, 4]
    run.history = []
    assert boundaries(run) == [0]


def test_a_run_that_logged_no_learning_rate_shows_what_its_history_holds(tmp_path):
    folder = write_run(tmp_path / "run")
    log = folder / "log" / "metrics.csv"
    log.write_text(log.read_text().replace("lr-SGD", "other"))
    chart = charts(folder)["lr"]
    assert "first and the last value" in chart.caption
    rows = [(float(row["epoch"]), float(row["value"])) for row in values(chart.spec["layer"][1])]
    assert rows == [(0, 0.1), (1, 0.01), (2, 0.1), (3, 0.01), (4, 0.1), (5, 0.01)]


def test_a_run_alone_needs_no_list_to_choose_from(tmp_path):
    found = charts(write_run(tmp_path / "run"))
    assert "rates" not in found
    assert all("params" not in found[name].spec for name in ("mask", "loss", "lr"))


def test_a_run_that_has_only_begun_has_no_charts(tmp_path):
    folder = write_run(tmp_path / "run", "running", closed=0)
    (folder / "log" / "metrics.csv").unlink()
    assert charts(folder) == {}


CURVES = st.dictionaries(st.integers(0, 500), st.floats(-100, 100, width=16), min_size=1, max_size=200)


@given(CURVES, st.integers(2, 60))
def test_a_thin_curve_keeps_its_peaks(points, most):
    thinned = thin(points, most)
    assert len(thinned) <= most
    assert set(thinned) <= set(points.items())
    assert thinned == sorted(thinned)
    for extreme in (min, max):
        assert extreme(value for _, value in thinned) == extreme(points.values())
