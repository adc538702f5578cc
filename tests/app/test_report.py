"""`ke-report` as a command."""

import sys

import pytest

from tests.app.commands import ke, python
from tests.report.folders import write_run, write_sweep


def test_help_is_there_without_the_report_s_libraries():
    done = python(
        "import sys; sys.argv[0] = 'ke-report'\n"
        "from lightning_ke.app.report import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({'torch', 'lightning', 'vl_convert', 'jinja2', 'omegaconf'} & set(sys.modules)))"
    )
    assert "DIR" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_a_report_imports_neither_torch_nor_lightning(tmp_path):
    write_sweep(tmp_path)
    code = (
        "from lightning_ke.app.report import main; main(); import sys; print({'torch', 'lightning'} & set(sys.modules))"
    )
    done = python(code, tmp_path, "--out", tmp_path / "new" / "sweep.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(tmp_path / "new" / "sweep.html"),
        "9 runs, 6 finished; pictures and numbers are in sweep_files beside it.",
        "unreadable: broken: results.json cannot be read: Expecting value: line 1 column 14 (char 13)",
        "failed: failed: ValueError: no <b>such</b> </script> thing",
        "running: running",
        "set()",
    ]
    assert (tmp_path / "new" / "sweep_files" / "generations.png").is_file()


def test_what_cannot_be_reported_is_one_line(tmp_path):
    done = ke("report", tmp_path / "gone")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ke-report: Expected a folder that holds runs of ke-train")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is POSIX's")
def test_a_page_that_does_not_fit_is_one_line_and_changes_nothing(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "report.html").write_text("old")
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "from lightning_ke.app.report import main; main()"
    )
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = python(limited, folder)
    assert done.returncode == 2
    assert "The report was not written, nothing was changed: File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
