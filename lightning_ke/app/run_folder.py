"""The folder of a run: whose it is, what state the run is in, and how long it has been at work."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lightning_ke.app.files import explained, write_text

# What a run writes at its end, once the test images have been looked at.
_RESULTS = ("results.json", "tables.md", "history.png", "slim.safetensors")


class RunFolder:
    """The folder of one run, with the books that are kept in it.

    ``config.yaml`` makes the folder a run's. ``status.json`` says ``state`` ("running", "finished", "failed" or
    "interrupted"), ``error`` (a sentence or null), ``started`` (ISO time), ``seconds`` (over all parts of a run that
    was continued), ``host``, ``folder``, ``began_in`` (the current folder when it began) and, of a finished run,
    ``score``. A run that was killed has no chance to say so: its state is still "running", but nobody holds its lock.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.checkpoint = self.path / "checkpoints" / "last.ckpt"
        self._lock = FileLock(self.path / ".lock", timeout=0)
        self._began = time.monotonic()
        self._before = 0.0

    @property
    def holds_run(self) -> bool:
        """Whether the folder is a run's."""
        return (self.path / "config.yaml").is_file()

    @property
    def config(self) -> DictConfig:
        """The configuration of the run.

        Raises:
            ValueError: If the file is none.
        """
        path = self.path / "config.yaml"
        try:
            config = OmegaConf.load(path)
        except Exception as error:  # YAML's and OmegaConf's own
            raise ValueError(
                f"Expected {str(path)!r} to be the configuration of a run, but it cannot be read: "
                f"{' '.join(str(error).split())} Put back what was changed in it, or begin a new run."
            ) from error
        assert isinstance(config, DictConfig)
        return config

    @property
    def status(self) -> dict[str, Any]:
        """What is known of the run's state; empty if nothing is.

        Raises:
            ValueError: If the file is none of ours.
        """
        path = self.path / "status.json"
        try:
            status = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(
                f"Expected {str(path)!r} to hold the state of a run, but it cannot be read: {error}. Remove it; what "
                "was trained is in the checkpoints."
            ) from error
        return dict(status)

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end, results and all."""
        return self.status.get("state") == "finished"

    @property
    def began_in(self) -> Path:
        """The current folder when the run began, where modules of the user's may lie."""
        return Path(self.status.get("began_in", Path.cwd()))

    @property
    def seconds(self) -> float:
        """How long the run has been at work, over all its parts."""
        return self._before + time.monotonic() - self._began

    @contextmanager
    def claimed(
        self, config: DictConfig, sentence: Callable[[BaseException], str], *, resume: bool = False
    ) -> Iterator[None]:
        """Make the folder this run's while it is at work, and record how that ended.

        Args:
            config: The configuration of the run.
            sentence: Says of an error in one line what is wrong.
            resume: Whether the run that the folder holds goes on; else the folder must hold none. If it cannot, and
                nothing was trained, its configuration stays what it was, and a finished run stays finished.

        Raises:
            FileExistsError: If another process is at work in the folder, or it holds a run that is not to be resumed.
        """
        if not is_first_process():  # the others of a run on several devices leave the books to the first
            yield
            return
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._acquire()
        try:
            if not resume:
                self.check_new()
            status = self.status if resume else {}
            configured = (self.path / "config.yaml").read_text(encoding="utf-8") if resume else None
            trained = self._trained()
            self._before, self._began = float(status.get("seconds", 0.0)), time.monotonic()
            started = status.get("started") or datetime.now(timezone.utc).isoformat(timespec="seconds")
            write_text(self.path / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
            places = {"host": platform.node(), "began_in": str(self.began_in), "folder": str(self.path)}
            self._write(state="running", error=None, started=started, **places, score=None)
            try:
                yield
            except BaseException as error:
                if configured is not None and trained == self._trained():  # the checkpoint is that of the run as it was
                    with suppress(OSError):  # a disk that is full does not hide why
                        write_text(self.path / "config.yaml", configured)
                        self._write(**status)
                if not self.finished:
                    self.give_up(error, sentence)
                raise
            self._write(state="finished")
        finally:
            lock.release()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Say of a run that something ends before its time how it goes on."""
        try:
            yield
        except BaseException:
            if is_first_process() and self.checkpoint.exists() and not self.finished:
                print(f"What was trained is kept. It goes on by: ke-train resume={self.path}", file=sys.stderr)
            raise

    def check_new(self) -> None:
        """Refuse a folder that holds a run already.

        Raises:
            FileExistsError: If the folder holds a run.
        """
        if self.holds_run:
            more = f"Continue it by resume={self.path}" if not self.finished else f"See {self.path / 'tables.md'}"
            raise FileExistsError(
                f"Expected the output folder {str(self.path)!r} to be new, but it holds a run. {more}, remove it, or "
                "choose another by hydra.run.dir=DIR."
            )

    def tick(self) -> None:
        """Record how long the run has been at work: a process that is killed cannot do so at its end."""
        if is_first_process():
            self._write()

    def record(self, **entries: Any) -> None:
        """Record more of the run's state.

        Args:
            **entries: What to write into ``status.json``, in plain types.
        """
        self._write(**entries)

    def give_up(self, error: BaseException, sentence: Callable[[BaseException], str]) -> None:
        """Record that the run failed or was interrupted; a disk that is full does not hide why.

        Args:
            error: What ended it.
            sentence: Says in one line what is wrong.
        """
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
        try:
            if interrupted:
                self._write(state="interrupted", error=None)
            else:
                self._write(state="failed", error=sentence(error))
        except OSError:
            return  # the lock is all that says that nobody is at work here, as after a kill

    def keep_results(self) -> list[str]:
        """Give the results of a finished run that has been continued other names; returns these.

        Test scores that have been seen stay seen: nothing overwrites them.
        """
        results = self.path / "results.json"
        if not results.is_file():
            return []
        count = len(json.loads(results.read_text(encoding="utf-8"))["history"])
        kept = []
        # The results themselves last: until then all of this can be done again.
        for path in (self.path / name for name in reversed(_RESULTS)):
            if path.is_file():
                kept.append(f"{path.stem}-{count}-generations{path.suffix}")
                path.replace(path.with_name(kept[-1]))
        return kept

    def _trained(self) -> int | None:
        """When the last checkpoint was written; None before the first."""
        return self.checkpoint.stat().st_mtime_ns if self.checkpoint.exists() else None

    def _acquire(self) -> FileLock:
        try:
            self._lock.acquire()
        except Timeout:
            raise FileExistsError(
                f"Expected nobody to be at work in {str(self.path)!r}, but another process is. Wait for its end, or "
                "choose another folder."
            ) from None
        return self._lock

    def _write(self, **entries: Any) -> None:
        status = {"folder": str(self.path), **self.status, "seconds": round(self.seconds, 3), **entries}
        write_text(self.path / "status.json", json.dumps(status, indent=1))


def is_first_process() -> bool:
    """Whether this process is the first of those that train one network together, before torch is imported."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return int(next((rank for rank in ranks if rank), 0)) == 0
