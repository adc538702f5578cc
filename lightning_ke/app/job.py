"""What Hydra runs: one run, or one job of a sweep. A module of its own, so that every launcher can import it."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lightning_ke.app import folders as folders  # every process that runs a job must know how to name it
from lightning_ke.app.answers import answered, line_of, sentence_for
from lightning_ke.app.preflight import check_complete, check_one_process
from lightning_ke.app.resume import absolute, check_same, relocated
from lightning_ke.app.run_folder import RunFolder, is_first_process

log = logging.getLogger(__name__)


class SweepJobError(RuntimeError):
    """A job of a sweep failed. Of plain text alone: it travels between processes, as the error itself may not."""


def job(config: DictConfig) -> float | None:
    """Run what was composed, in the folder that Hydra has chosen.

    Args:
        config: The composed configuration.

    Returns:
        The best value of the monitored metric, for the sweeper.
    """
    logging.raiseExceptions = False  # a full disk is said once, not by a traceback for every line of the log
    settings, config = HydraConfig.get(), absolute(config)
    record = RunFolder(Path(settings.runtime.output_dir))
    if settings.mode == RunMode.MULTIRUN:
        return _sweep_job(config, record)
    with answered():  # here, and not by Hydra, which has lines of its own to add
        check_complete(config)
        if is_first_process():
            record.check_new()
        from lightning_ke.app.experiment import run

        with record.kept():
            return run(config, record.path)


def _sweep_job(config: DictConfig, record: RunFolder) -> float | None:
    """Run, continue or skip one job; whatever is wrong with it is written down and does not concern the others."""
    name = record.path.name
    try:
        check_complete(config)
        check_one_process(config)
        # Of a run that failed before its first epoch was over there is nothing to keep, its configuration neither.
        if record.holds_run and record.checkpoint.exists():
            check_same(relocated(record.config, record), config, record.path)
            if record.finished:
                log.info("%s is finished already, skipped.", name)
                score: float | None = record.status.get("score")
                return score
            log.info("%s goes on where it was interrupted.", name)
        from lightning_ke.app.experiment import run

        return run(config, record.path, resume=record.holds_run)
    except Exception as error:
        sentence = sentence_for(error)
        if not record.holds_run:  # else the run that it holds keeps its own books
            record.give_up(error, sentence_for)
        bug = line_of(error) is None
        log.error("%s failed: %s", name, sentence, exc_info=error if bug else None)
        raise SweepJobError(f"{name}: {sentence}") from None
