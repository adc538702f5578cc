"""Studies that grow line by line: nothing is run twice, and the page says what the lines say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from benchmarks import paired

STUDY = paired.Study("trial", "Trial", "long", "small", {"acc": ("accuracy", "%")}, "What was done.", "python -m x --y")


def row(group: str, arm: str, seed: int, acc: float, slim: float | None = None) -> dict[str, object]:
    networks = {"dense": {"acc": acc, "parameters": 1000}}
    if slim is not None:
        networks["slim"] = {"acc": slim, "parameters": 500}
    history = {"history": [[0.1, 0.2], [0.3, 0.4]]} if slim is not None else {}
    return {"group": group, "arm": arm, "seed": seed, "seconds": 120.0, "networks": networks, **history}


def test_a_case_is_run_once_and_what_was_cut_off_again(tmp_path: Path) -> None:
    path, ran = tmp_path / "out.jsonl", []
    cases = [("g", arm, seed) for seed in range(2) for arm in ("long", "small")]

    def run(group: str, arm: str, seed: int) -> dict[str, object]:
        ran.append((group, arm, seed))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return row(group, arm, seed, 0.5)

    with pytest.raises(KeyboardInterrupt):
        paired.run_missing(path, cases, run)
    with path.open("a") as out:
        out.write('{"group": "g", "ar')  # the machine went down while it wrote
    paired.run_missing(path, cases, run)
    assert ran == [*cases[:3], *cases[2:]]
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [0, 0, 1, 1]


def test_the_page_holds_means_and_paired_differences(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    scores = {"long": (0.5, 0.6, 0.7), "small": (0.4, 0.45, 0.41), "kels": (0.52, 0.61, 0.74)}
    lines = []
    for seed in range(3):
        for arm, values in scores.items():
            lines.append(row("g", arm, seed, values[seed], 0.3 if arm == "kels" else None))
    versions = {"torch": "2", "lightning": "2", "python": "3"}
    path.write_text("".join(json.dumps(line | versions) + "\n" for line in lines))
    paired.write(STUDY, path, tmp_path / "results")
    page = (tmp_path / "results" / "trial.md").read_text()
    interval = stats.ttest_rel(scores["kels"], scores["long"]).confidence_interval()
    half, mean = 50 * (interval.high - interval.low), 50 * (interval.high + interval.low)
    assert f"| g | kels | dense | 3 | 1,000 | 62.3 ± 11.1 | {mean:+.1f} ± {half:.1f} |" in page
    assert "| 2 | 0.300 / 0.400 |" in page
    assert "0.3 hours" in page
    assert (tmp_path / "results" / "trial.png").stat().st_size > 1000
    assert len((tmp_path / "results" / "trial.csv").read_text().splitlines()) == 1 + 9 + 3


def test_few_seeds_tell_nothing_however_far_apart_they_are(tmp_path: Path) -> None:
    versions = {"torch": "2", "lightning": "2", "python": "3"}
    for seeds, told in ((4, False), (5, True)):
        path = tmp_path / f"{seeds}.jsonl"
        lines = [
            row("g", arm, seed, acc + 0.01 * seed)
            for seed in range(seeds)
            for arm, acc in (("long", 0.5), ("small", 0.3))
        ]
        path.write_text("".join(json.dumps(line | versions) + "\n" for line in lines))
        paired.write(STUDY, path, tmp_path)
        assert ("**+20.0 ± 0.0**" in (tmp_path / "trial.md").read_text()) == told
