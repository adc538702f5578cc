"""The parity page: what it reads, and what it says of it."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from benchmarks.parity import page
from benchmarks.parity.__main__ import collect


def lay_out(folder, seed, generations=2, epochs=20):
    """Runs of both codes: ours is 1 point better in the dense network and twice as fast."""
    for code, seconds, better in (("theirs", 100.0, 0.0), ("ours", 50.0, 0.01)):
        run = folder / f"{code}-g{generations}x{epochs}-s{seed}"
        run.mkdir()
        (run / "measured.json").write_text(json.dumps({"seconds": 2 * seconds, "processor_seconds": seconds}))
        scores = [(0.3 + 0.02 * seed + better, 0.2), (0.4 + 0.02 * seed + better, 0.3)][:generations]
        if code == "theirs":
            content = [{"dense": dense, "slim": slim} for dense, slim in scores]
            (run / "result.json").write_text(json.dumps(content))
        else:
            content = [{"dense": {"val_acc": dense}, "fit": {"val_acc": slim}} for dense, slim in scores]
            (run / "results.json").write_text(json.dumps({"history": content}))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of both codes, two generations."""
    for seed in (0, 1):
        lay_out(tmp_path, seed)
    (tmp_path / "ours-g2x20-s2").mkdir()  # not finished
    return tmp_path


def test_every_generation_of_every_finished_run_is_a_row(runs):
    table = collect(runs)
    assert len(table) == 2 * 2 * 2
    row = table[(table["code"] == "ours") & (table["seed"] == 1) & (table["generation"] == 2)].iloc[0]
    assert row["dense"] == pytest.approx(0.43)
    assert row["slim"] == pytest.approx(0.3)
    assert (row["generations"], row["epochs"]) == (2, 20)


def test_nothing_finished_is_said(tmp_path):
    with pytest.raises(SystemExit, match="No run has finished in"):
        collect(tmp_path)


def test_the_page_holds_means_spreads_differences_and_the_ratio(runs, tmp_path):
    page.write(collect(runs), tmp_path / "results")
    text = (tmp_path / "results" / "parity.md").read_text()
    assert "| 1 | dense | 2 | 31.0 ± 1.4 | 32.0 ± 1.4 | +1.0 ± 6.1 |" in text
    assert "**0.50 x** in processor time (50 s against 100 s), 0.50 x in wall-clock time" in " ".join(text.split())
    assert len(pd.read_csv(tmp_path / "results" / "parity.csv")) == 8
    assert (tmp_path / "results" / "parity.png").stat().st_size > 5000


def test_a_seed_of_fewer_generations_counts_where_it_has_been(runs, tmp_path):
    lay_out(runs, 2, generations=1)
    page.write(collect(runs), tmp_path / "results")
    text = (tmp_path / "results" / "parity.md").read_text()
    assert "| 1 | dense | 3 | 32.0 ± 2.0 | 33.0 ± 2.0 |" in text
    assert "| 2 | dense | 2 | 41.0 ± 1.4 | 42.0 ± 1.4 |" in text
    assert "2 generations of 20" in " ".join(text.split())
