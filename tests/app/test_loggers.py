"""The loggers of several processes that train one network together: what only the first of them does."""

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from lightning_ke.app.loggers import run_loggers
from lightning_ke.app.wandb_logger import wandb_logger
from tests.report.offline import needs_wandb


def test_the_first_process_alone_puts_the_rows_of_an_earlier_part_aside(tmp_path, monkeypatch):
    rows = tmp_path / "log" / "metrics.csv"
    rows.parent.mkdir()
    rows.write_text("epoch,step\n")
    node = {"_target_": f"{CSVLogger.__module__}.CSVLogger", "save_dir": str(tmp_path), "name": "log", "version": ""}
    config = OmegaConf.create({"logger": {"csv": node}})
    for rank, kept in (("1", True), ("0", False)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(rank_zero_only, "rank", int(rank))  # Lightning has asked when it was imported
        with run_loggers(config):
            assert rows.exists() == kept


@needs_wandb
def test_the_first_process_alone_names_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for rank, named in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        wandb_logger(str(tmp_path), "project")
        assert (tmp_path / "wandb" / "id.txt").is_file() == named
