"""What a study is: arms that are trained equally long, one learning rate tuned for each, several seeds.

A job is one `ke-train`; everything about a study that is not in a job's overrides is in this file and in `studies.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        name: What the tables call it.
        meaning: One line for the tables' legend.
        overrides: What distinguishes its `ke-train` from the others'.
        rate_of: Name of the arm whose learning rate it has; empty for one of its own.
        after: Name of the arm whose network it begins from or learns from, at the same seed; empty for none.
        take: From the folder of that arm's training to further overrides; may write files into it.
    """

    name: str
    meaning: str
    overrides: Sequence[str]
    rate_of: str = ""
    after: str = ""
    take: Callable[[Path], Sequence[str]] = lambda _: ()

    @property
    def trains_slim(self) -> bool:
        """Whether its slim network learns to stand alone: something is redrawn, or both networks are trained."""
        redraws = "redraw=none" not in self.overrides and "generations.count=1" not in self.overrides
        return redraws or "generations=slimmable" in self.overrides

    @property
    def config(self) -> str:
        """What distinguishes it, in one line; two arms of one name must not differ in it."""
        return " ".join([*self.overrides, *([f"after={self.after}"] if self.after else [])])


@dataclass(frozen=True)
class Job:
    """One training: an arm, a learning rate, a seed."""

    arm: Arm
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.arm.name}-lr{self.lr:g}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """Arms that are compared.

    Args:
        name: Name of its page.
        title: Heading of its page.
        setting: Name of what all of its jobs have in common (`base`). Studies of one setting share their trainings.
        arms: What is compared. The first one is the dense long baseline.
        same_size: Name of the arm that every slim network is compared with.
        base: Overrides of every job.
        rates: Learning rates that are tried first, in this order. As long as the best one is the lowest or the highest,
            half of it or twice as much is tried, too. A single one is taken as it is, for all arms.
        seeds: Seeds of the comparison.
        tuning_seed: Seed of the runs that choose the learning rate; also the first of `seeds`.
        test_images: Number of test images, from which the standard error of one run's test accuracy follows.
        controls: Names of the arms that every network of the slim size is compared with in a table of its own.
        about: What a reader must know of its setting, in Markdown.
        findings: What its results say, in Markdown; empty until somebody has read them.
    """

    name: str
    title: str
    setting: str
    arms: Sequence[Arm]
    same_size: str
    base: Sequence[str]
    rates: Sequence[float]
    seeds: Sequence[int]
    tuning_seed: int = field(default=0)
    test_images: int = 6_149  # Flowers-102's
    controls: Sequence[str] = ()
    about: str = ""
    findings: str = ""

    def arm(self, name: str) -> Arm:
        """One of its arms.

        Args:
            name: What the tables call it.
        """
        return next(arm for arm in self.arms if arm.name == name)

    def needed_for(self, names: Collection[str]) -> set[str]:
        """Names of the arms that must be trained so that some can be: their own, and those that they learn from.

        Args:
            names: Names of the arms that are wanted.

        Raises:
            ValueError: If the study has no arm of a name.
        """
        known = {arm.name: arm for arm in self.arms}
        if unknown := sorted(set(names) - known.keys()):
            raise ValueError(
                f"Expected arms of study {self.name!r}, but it has no {unknown[0]!r}; it has {list(known)}."
            )
        found = set(names)
        while more := {other for name in found for other in (known[name].after, known[name].rate_of) if other} - found:
            found |= more
        return found

    def next_jobs(self, scores: Mapping[str, float], here: Collection[str] = ()) -> Iterator[Job]:
        """Name the jobs that can be run now, in the order in which they are worth most.

        First every arm's learning rates, one rate after the other for all arms, then the other seeds, one seed after
        the other for all arms: a study that is stopped half way has equally much of each arm. Before a job that needs
        another one's network comes that other one, if its folder is on another machine.

        Args:
            scores: Validation score of each finished job, by its name.
            here: Names of the finished jobs whose folders are at hand.
        """
        wanted = {arm.name: self._tuning(arm, scores) for arm in self.arms if not arm.rate_of}
        longest = max(len(jobs) for jobs in wanted.values())
        for position in range(longest):
            for jobs in wanted.values():
                if position < len(jobs) and jobs[position].name not in scores:
                    yield from self._with_needed(jobs[position], scores, here)
        for seed in self.seeds:
            for arm in self.arms:
                chosen = self.chosen_rate(arm, scores)
                if chosen is not None and (job := Job(arm, chosen, seed)).name not in scores:
                    yield from self._with_needed(job, scores, here)

    def needed(self, job: Job, scores: Mapping[str, float]) -> Job | None:
        """The job whose network a job needs; None if it needs none, or if that one's learning rate is not chosen yet.

        Args:
            job: The job.
            scores: Validation score of each finished job, by its name.
        """
        if not job.arm.after:
            return None
        other = self.arm(job.arm.after)
        chosen = self.chosen_rate(other, scores)
        return None if chosen is None else Job(other, chosen, job.seed)

    def chosen_rate(self, arm: Arm, scores: Mapping[str, float]) -> float | None:
        """The learning rate with the best validation score at the tuning seed; None while it is still being looked for.

        Args:
            arm: Whose learning rate.
            scores: Validation score of each finished job, by its name.
        """
        if arm.rate_of:
            return self.chosen_rate(self.arm(arm.rate_of), scores)
        jobs = self._tuning(arm, scores)
        if any(job.name not in scores for job in jobs):
            return None
        return max(jobs, key=lambda job: scores[job.name]).lr

    def _with_needed(self, job: Job, scores: Mapping[str, float], here: Collection[str]) -> Iterator[Job]:
        needed = self.needed(job, scores)
        if needed is not None and needed.name not in here:
            yield needed
        elif needed is not None or not job.arm.after:
            yield job

    def _tuning(self, arm: Arm, scores: Mapping[str, float]) -> list[Job]:
        """The runs that choose an arm's learning rate, as far as is known by now."""
        rates = list(self.rates)
        while True:
            jobs = [Job(arm, rate, self.tuning_seed) for rate in rates]
            if len(self.rates) == 1 or any(job.name not in scores for job in jobs):
                return jobs
            best = max(jobs, key=lambda job: scores[job.name]).lr
            if best == max(rates):
                rates.append(best * 2)
            elif best == min(rates):
                rates.append(best / 2)
            else:
                return jobs
