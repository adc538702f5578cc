"""Run by `nox -s wheel` in an environment that holds nothing but the installed package.

`installed.py {core|app}` checks the package, `installed.py study` the sweep that was run in the current folder.
"""

import importlib.util
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import lightning_ke


def check_core() -> None:
    """The package alone: every public name, and no library of an extra."""
    assert "site-packages" in Path(lightning_ke.__file__).parts, "imported from the source tree"
    assert importlib.util.find_spec("hydra") is None, "this environment is not empty"
    for name in lightning_ke.__all__:
        getattr(lightning_ke, name)
    assert (files("lightning_ke") / "py.typed").is_file()
    from lightning_ke.data import fashion_mnist

    images, _ = fashion_mnist.load("test")
    assert len(images) == 2500
    assert (files("lightning_ke.data.fashion_mnist") / "LICENSE").is_file()


def check_app() -> None:
    """With the app extra: the configuration came along, and every file of it composes."""
    from hydra import compose, initialize_config_dir

    from lightning_ke.app.train import config_dir

    assert config_dir().parent == Path(lightning_ke.__file__).resolve().parent
    experiments = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
    assert experiments
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for experiment in experiments:
            compose("train", [f"experiment={experiment}"])


def check_study() -> None:
    """A sweep over three rates: three runs of Weights & Biases with the figures of their jobs, report and dashboard."""
    groups, rates, runs = set(), set(), set()
    jobs = sorted(Path("multirun/smoke").glob("*/results.json"))
    assert len(jobs) == 3
    for results in jobs:
        (log,) = results.parent.glob("wandb/offline-run-*/*.wandb")
        records = read_back(log)
        (run,) = (record["run"] for record in records if record["type"] == "run")
        runs.add(run["run_id"])
        groups.add(run["run_group"])
        configs = [record["config"]["update"] for record in records if record["type"] == "config"]
        rates |= {config["ke"]["rate"] for config in configs if "ke" in config}
        rows = [record["history"]["item"] for record in records if record["type"] == "history"]
        history = json.loads(results.read_text(encoding="utf-8"))["history"]
        for side in ("dense", "fit"):
            name = f"ke/generation_end/{side}/val_acc"
            logged = {row["ke/generation"]: row[name] for row in rows if name in row}
            assert logged == {record["generation"]: record[side]["val_acc"] for record in history}
        axes = [record["metric"] for record in records if record["type"] == "metric"]
        assert {axis["name"] for axis in axes if axis.get("step_metric") == "ke/generation"} > {name}
    assert (groups, rates, len(runs)) == ({"smoke"}, {0.3, 0.5, 0.8}, 3)
    page = Path("multirun/smoke/report.html")
    assert 100_000 < page.stat().st_size < 5_000_000
    assert all(f"split.rate={rate}" in page.read_text(encoding="utf-8") for rate in rates)
    assert list(page.with_name("report_files").glob("*.png"))
    workspace = json.loads(Path("ke-dashboard.json").read_text(encoding="utf-8"))
    assert "ke/generation_end/fit/val_acc" in json.dumps(workspace)


def read_back(log: Path) -> list[dict[str, dict]]:
    """The records of an offline run, as the tool of Weights & Biases tells them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    {"core": check_core, "app": check_app, "study": check_study}[sys.argv[1]]()
    print(f"installed package, {sys.argv[1]}: all well")
