"""Writes docs/compatibility.md from the tests: `python -m nox -s compatibility`.

A test that shows how this package gets on with a neighbour or an option says so by a marker::

    @pytest.mark.compat("Callbacks", "EarlyStopping", "works", note="starts over with each generation")

Several tests may carry the same row; it is written if all of them pass. The sentence of a refusal is the real one:
the test records it with pytest's own fixture, ``record_property("refusal", str(caught.value))``. With paths or names of
tests as arguments only their rows are written and the others stay as they are.

This file is a plugin of pytest that is loaded for that command only (``-p tests.compatibility``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: The tables of the page, in their order.
GROUPS = (
    "Callbacks",
    "Loggers",
    "Trainers and command lines",
    "Trainer options",
    "Precision and compilation",
    "Devices and strategies",
    "Checkpoints and interruptions",
    "Modules",
)
VERDICTS = ("works", "refused")

HEAD = """\
# What works beside Knowledge Evolution, and what is refused

Every row is shown by a test. This page is written by `python -m nox -s compatibility`, which runs those tests; what is
refused is refused before the first batch, in `setup` or where a checkpoint is read, with the sentence that stands here.
"""


@dataclass(frozen=True, order=True)
class Row:
    """A neighbour or an option, and what a test shows of it."""

    group: str
    name: str
    verdict: str
    note: str = ""

    @classmethod
    def of(cls, marker: pytest.Mark) -> Row:
        row = cls(*marker.args, **marker.kwargs)
        if row.group not in GROUPS or row.verdict not in VERDICTS:
            raise ValueError(
                f"Expected a compat marker with a group of {GROUPS} and a verdict of {VERDICTS}, but got {row}."
            )
        return row


def rows_of(markers: Iterable[pytest.Mark]) -> list[Row]:
    return [Row.of(marker) for marker in markers if marker.name == "compat"]


def line_of(row: Row, shown_by: Iterable[str] = (), refusal: str = "") -> str:
    """A row in Markdown."""
    how = (" ".join(refusal.split()) or row.note).replace("|", "\\|")
    return f"| {row.name} | {row.verdict} | {how} | {', '.join(f'`{file}`' for file in sorted(shown_by))} |"


def write_page(lines: dict[tuple[str, str, str], str]) -> str:
    """The page as Markdown, from its rows by group, name and verdict."""
    parts = [HEAD]
    for group in GROUPS:
        of_group = sorted((key[1].lower().strip("`"), line) for key, line in lines.items() if key[0] == group)
        if of_group:
            header = [f"## {group}", "", "| what | | how | shown by |", "|:--|:--|:--|:--|"]
            parts.append("\n".join([*header, *(line for _, line in of_group), ""]))
    return "\n".join(parts)


def read_page(page: str) -> dict[tuple[str, str, str], str]:
    """The rows of a page by group, name and verdict."""
    found, group = {}, ""
    for line in page.splitlines():
        if line.startswith("## "):
            group = line[3:]
        elif line.startswith("| ") and not line.startswith("| what "):
            name, verdict = (cell.strip() for cell in line.split(" | ")[:2])
            found[group, name.removeprefix("| "), verdict] = line
    return found


# The plugin ---------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-compatibility", metavar="FILE", help="write the compatibility page to this file")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    # Handed on with the report: under pytest-xdist the tests run in other processes.
    rows = rows_of(item.iter_markers("compat"))
    report: Any = yield
    report.user_properties += [("compat", [row.group, row.name, row.verdict, row.note]) for row in rows]
    return report


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--write-compatibility")
    if path and not hasattr(config, "workerinput"):
        everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.getoption("keyword")
        config.pluginmanager.register(_Writer(Path(path).resolve(), everything))


class _Writer:
    """Gathers what the tests showed and writes the page if all of them passed."""

    def __init__(self, path: Path, everything: bool) -> None:
        self.path = path
        self.everything = everything
        self.shown_by: dict[Row, set[str]] = {}
        self.refusals: dict[Row, str] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        rows = [Row(*value) for name, value in report.user_properties if name == "compat"]
        if rows and not report.passed:
            self.failed.add(report.nodeid)
        if report.when != "call":
            return
        sentences = [str(value) for name, value in report.user_properties if name == "refusal"]
        for row in rows:
            self.shown_by.setdefault(row, set()).add(report.nodeid.partition("::")[0])
            if row.verdict == "refused":
                if len(sentences) != 1:
                    self.failed.add(f"{report.nodeid} (records {len(sentences)} refusals instead of one)")
                self.refusals[row] = "".join(sentences)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.failed or not self.shown_by:
            terminalreporter.write_line(
                f"Not written, because not every row was shown: {sorted(self.failed)}", red=True
            )
            return
        kept = not self.everything and self.path.exists()
        lines = read_page(self.path.read_text(encoding="utf-8")) if kept else {}
        for row, files in self.shown_by.items():
            key = (row.group, row.name, row.verdict)
            others = re.findall(r"`(tests/[^`]+)`", lines.get(key, ""))  # that were not asked for now
            lines[key] = line_of(row, files.union(others), self.refusals.get(row, ""))
        self.path.write_text(write_page(lines), encoding="utf-8")
        terminalreporter.write_line(f"Wrote {len(self.shown_by)} rows to {self.path}.")
