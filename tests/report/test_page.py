"""The page of a report: complete, self-contained, of bounded size, and closed to what runs are called."""

import csv
import json
import re
from pathlib import Path

import pytest

from lightning_ke.report.page import write_report
from tests.report.folders import write_run, write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder with the report of a sweep in it."""
    root = write_sweep(tmp_path_factory.mktemp("sweep"))
    write_report(root, root / "report.html")
    return root


@pytest.fixture(scope="module")
def page(sweep):
    return (sweep / "report.html").read_text(encoding="utf-8")


def body(page):
    """What people read, without scripts."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


def test_the_page_loads_nothing(page):
    markup = body(page)
    assert not re.findall(r"<(?:link|img|iframe|script|source)[^>]*(?:href|src)=\"(?!data:)", markup)
    assert not re.findall(r"<script[^>]*\bsrc=", page)
    assert "default-src 'none'" in page


def test_what_did_not_finish_is_said(page):
    text = body(page)
    assert "3 of 9 runs did not finish" in text
    for state, name in (("failed", "failed"), ("running", "running"), ("unreadable", "broken")):
        assert f'<span class="{state}">{state}</span> {name}' in text


def test_no_name_or_error_becomes_markup(page):
    assert "no &lt;b&gt;such&lt;/b&gt; &lt;/script&gt; thing" in page
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])
    assert list(charts) == ["generations", "rates", "costs", "mask", "loss", "lr"]


def test_a_run_of_a_seed_that_counts_already_is_said_not_to_count(tmp_path):
    for name, seed in (("first", 0), ("other", 1), ("repeated", 0)):
        write_run(tmp_path / name, seed=seed)
    write_report(tmp_path, tmp_path / "report.html")
    assert "not counted: the seed of first again" in body((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_differences_come_before_what_is_common(page):
    text = body(page)
    differences = text[text.index("What the lines differ in") : text.index("What all runs have in common")]
    assert re.findall(r'scope="row">([\w.]+)<', differences) == [
        "split.rate",
        "generations.count",
        "generations.epochs",
    ]
    common = text[text.index("What all runs have in common") : text.index('id="environment"')]
    assert "split.rate" not in common
    assert re.search(r"seed</th>\s*<td[^>]*>0, 1, 2</td>", common)


def test_the_environment_is_shown_once_for_all_that_have_it(page):
    assert body(page).count("packages.torch") == 1


def test_pictures_and_numbers_lie_beside_it(sweep):
    beside = sweep / "report_files"
    names = {"generations", "rates", "costs", "mask", "loss", "lr"}
    assert {path.stem for path in beside.glob("*.png")} == names
    tables = {path.stem: list(csv.DictReader(path.open(newline=""))) for path in beside.glob("*.csv")}
    assert set(tables) == {"table", "runs", "generations", "mask"}
    assert [row["state"] for row in tables["runs"]].count("finished") == 6
    assert len(tables["runs"]) == 9
    first = next(row for row in tables["generations"] if row["run"] == "rate0.8/seed1" and row["generation"] == "1")
    assert (float(first["dense/val_acc"]), float(first["fit/val_acc"])) == (0.7, 0.1)


def test_a_report_is_replaced_and_is_the_same_again(sweep, page, monkeypatch):
    (sweep / "report_files" / "table.csv").write_text("old")
    monkeypatch.setattr("lightning_ke.report.page.picture", lambda chart: chart.name.encode())
    write_report(sweep, sweep / "report.html")
    assert (sweep / "report.html").read_text(encoding="utf-8") == page
    assert "rate 0.3" in (sweep / "report_files" / "table.csv").read_text()


def test_fifty_long_runs_are_a_page_of_less_than_5_mb(tmp_path, monkeypatch):
    """50 runs of 10 generations of 200 epochs with the 161 parameters of a ResNet50, no two alike."""
    monkeypatch.setattr("lightning_ke.report.page.picture", lambda chart: b"")
    layers = {f"backbone.layer{number}.0.conv.weight": [512, 512, 3, 3] for number in range(161)}
    for number in range(50):
        folder = write_run(tmp_path / f"run-of-a-long-sweep-{number}", count=10, epochs=200, rate=0.3 + number / 100)
        results = json.loads((folder / "results.json").read_text())
        results["mask"] = [{"name": name, "shape": shape, "fit": (1 + number) / 100} for name, shape in layers.items()]
        (folder / "results.json").write_text(json.dumps(results))
    write_report(tmp_path, tmp_path / "report.html")
    size = (tmp_path / "report.html").stat().st_size
    assert 1_000_000 < size < 5_000_000
    assert "run-of-a-long-sweep-49" in Path(tmp_path / "report.html").read_text(encoding="utf-8")


def test_runs_of_which_none_has_finished_have_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_ke.report.page.picture", lambda chart: b"")
    folder = write_run(tmp_path / "run", "running", closed=0)
    (folder / "log" / "metrics.csv").unlink()
    write_report(folder, tmp_path / "page.html")
    text = body((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "No run has finished yet." in text
    assert "1 of 1 runs did not finish" in text
