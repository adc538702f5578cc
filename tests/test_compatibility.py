"""The compatibility page and the tests name the same rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.compatibility import Row, line_of, read_page, write_page

ROOT = Path(__file__).parents[1]

COLLECT = """
import json, sys
import pytest
from tests.compatibility import rows_of

class Collect:
    def pytest_collection_finish(self, session):
        rows = {(row.group, row.name, row.verdict) for item in session.items for row in rows_of(item.iter_markers())}
        sys.stderr.write("ROWS" + json.dumps(sorted(rows)))

sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "compat", *sys.argv[1:]], [Collect()]))
"""


def test_the_page_has_a_row_for_every_marked_test_and_no_other() -> None:
    marked = [str(path) for path in ROOT.glob("tests/**/test_*.py") if "mark.compat" in path.read_text("utf-8")]
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, *marked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {tuple(row) for row in json.loads(done.stderr.rpartition("ROWS")[2])}
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    missing, stale = rows - read_page(page).keys(), read_page(page).keys() - rows
    assert not missing | stale, f"run `python -m nox -s compatibility`: missing {missing}, stale {stale}"


def test_a_written_page_is_read_back() -> None:
    works = Row("Callbacks", "EarlyStopping", "works", note="a | b")
    refused = Row("Loggers", "`x`", "refused")
    lines = {
        ("Loggers", "`x`", "refused"): line_of(refused, ["b.py", "a.py"], "It cannot.\nUse y."),
        ("Callbacks", "EarlyStopping", "works"): line_of(works),
    }
    page = write_page(lines)
    assert read_page(page) == lines
    assert "| `x` | refused | It cannot. Use y. | `a.py`, `b.py` |" in page
