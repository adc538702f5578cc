"""Run folders are found and read, whatever state they are in."""

import json

import pytest

from lightning_ke.report.runs import find_runs, read_run, read_runs
from tests.report.folders import write_run, write_sweep


def test_runs_are_found_at_any_depth_and_nothing_else_is(tmp_path):
    write_run(tmp_path / "b" / "10")
    write_run(tmp_path / "b" / "2")
    run = write_run(tmp_path / "a")
    for elsewhere in (run / "checkpoints", tmp_path / "wandb" / "run-1" / "files", tmp_path / ".hydra"):
        elsewhere.mkdir(parents=True)
        (elsewhere / "config.yaml").write_text("a: 1")
    assert [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)] == ["a", "b/2", "b/10"]
    assert find_runs(run) == [run]


def test_a_finished_run_is_read_whole(tmp_path):
    run = read_run(write_run(tmp_path / "run", seed=3, rate=0.8), "run")
    assert (run.state, run.error, run.notes) == ("finished", "", [])
    assert (run.seed, run.rate, run.monitor, run.mode, run.seconds) == (3, 0.8, "val_acc", "max", 90.0)
    assert [record["generation"] for record in run.history] == [1, 2, 3]
    assert run.networks["slim"]["operations"] == 640
    assert run.mask[0] == {"name": "net.conv1.weight", "shape": [8, 3, 3, 3], "fit": 0.8}
    assert run.curves["train_loss"][0] == 2.5
    assert set(run.curves) == {"train_loss", "val_loss", "ke/fit/val_loss", "lr-SGD"}


@pytest.mark.parametrize("state", ["failed", "running", "interrupted"])
def test_a_run_without_results_is_read_from_its_logs(tmp_path, state):
    run = read_run(write_run(tmp_path / "run", state, error="out of memory", closed=2), "run")
    assert (run.state, run.error) == (state, "out of memory")
    assert run.networks == {}
    assert [record["dense"]["val_acc"] for record in run.history] == [0.61, 0.62]
    assert run.history[1]["lr"] == {"first": 0.1, "last": 0.01}
    assert "magnitude" not in run.history[0]


def test_a_run_without_loggers_is_read_from_its_history(tmp_path):
    folder = write_run(tmp_path / "run", "running", closed=2)
    (folder / "log" / "ke_history.csv").rename(folder / "ke_history.csv")
    assert [record["generation"] for record in read_run(folder, "run").history] == [1, 2]


def test_a_run_of_an_older_version_has_no_status(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "status.json").unlink()
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({key: results[key] for key in ("history", "networks")}))
    run = read_run(folder, "run")
    assert (run.state, run.monitor) == ("finished", "val_acc")
    assert run.notes == ["recorded no mask, no environment"]
    (folder / "results.json").unlink()
    assert read_run(folder, "run").state == "unknown"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", '{"history": [', "results.json cannot be read: Expecting value"),
        ("results.json", "[1]", "results.json cannot be read: it holds a list"),
        ("config.yaml", "a: [1", "config.yaml cannot be read: while parsing"),
        ("results.json", '{"history": [{"generation": 1}]}', "results.json cannot be read: its history does not say"),
        ("results.json", '{"history": "long"}', "results.json cannot be read: its history does not say"),
        ("results.json", '{"networks": [1]}', "results.json cannot be read: its networks have no scores by name"),
        ("log/metrics.csv", b"\xff\xfe\x00", "metrics.csv cannot be read: 'utf-8' codec"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, said):
    folder = write_run(tmp_path / "run")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    run = read_run(folder, "run")
    assert run.state == "unreadable"
    assert run.error.startswith(said)


def test_a_log_that_is_being_written_may_end_anywhere(tmp_path):
    folder = write_run(tmp_path / "run", "running")
    whole = (folder / "log" / "metrics.csv").read_text()
    for length in range(60, len(whole), 7):
        (folder / "log" / "metrics.csv").write_text(whole[:length])
        assert read_run(folder, "run").state == "running"
    (folder / "log" / "metrics.csv").write_text("epoch,val_loss\n0,1.0,7,7\n1,nan\n")
    assert read_run(folder, "run").curves == {"val_loss": {0: 1.0}}


def test_the_log_of_a_resumed_run_goes_on_in_another_file(tmp_path):
    folder = write_run(tmp_path / "run", "running", closed=1)
    (folder / "log" / "ke_history-2.csv").write_text("generation,epochs,dense/val_acc\n2,2,0.7\n")
    (folder / "log" / "metrics-2.csv").write_text("epoch,val_loss\n5,0.25\n6,0.125\n")
    run = read_run(folder, "run")
    assert [record["dense"]["val_acc"] for record in run.history] == [0.61, 0.7]
    assert {epoch: run.curves["val_loss"][epoch] for epoch in (0, 5, 6)} == {0: 2.6, 5: 0.25, 6: 0.125}


def test_a_run_that_goes_on_beyond_its_results_shows_what_it_has_closed(tmp_path):
    folder = write_run(tmp_path / "run", count=3)
    (folder / "status.json").write_text('{"state": "running"}')
    with (folder / "log" / "ke_history.csv").open("a") as file:
        file.write("4,2,0.9,0.8,length,0.1,0.01,0.3\n")
    assert [record["dense"]["val_acc"] for record in read_run(folder, "run").history] == [0.61, 0.62, 0.63, 0.9]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*gone'"):
        read_runs(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"Expected runs of ke-train in .*config.yaml"):
        read_runs(tmp_path)


def test_no_run_of_a_sweep_is_dropped(tmp_path):
    states = {run.name: run.state for run in read_runs(write_sweep(tmp_path))}
    assert len(states) == 9
    assert {name: state for name, state in states.items() if state != "finished"} == {
        "broken": "unreadable",
        "failed": "failed",
        "running": "running",
    }
