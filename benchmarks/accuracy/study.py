"""What a study is: arms that are trained equally long, one learning rate tuned for each, several seeds.

A job is one `ke-train`; everything about a study that is not in a job's overrides is in this file and in `studies.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        name: What the tables call it.
        meaning: One line for the tables' legend.
        overrides: What distinguishes its `ke-train` from the others'.
    """

    name: str
    meaning: str
    overrides: Sequence[str]


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
        name: Name of its folder and of its files.
        title: Heading of its page.
        arms: What is compared. The first one is the dense long baseline.
        same_size: Name of the arm that every slim network is compared with.
        base: Overrides of every job.
        rates: Learning rates that are tried, in this order. If the best one is the lowest or the highest, half of it or
            twice as much is tried, too. A single one is taken as it is, for all arms.
        tuning_seed: Seed of the runs that choose the learning rate; also the first of `seeds`.
        seeds: Seeds of the comparison.
        test_error: Standard error of one run's test accuracy, in points.
    """

    name: str
    title: str
    arms: Sequence[Arm]
    same_size: str
    base: Sequence[str]
    rates: Sequence[float]
    seeds: Sequence[int]
    tuning_seed: int = field(default=0)
    test_error: float = 0.6

    def next_jobs(self, scores: Mapping[str, float]) -> Iterator[Job]:
        """Name the jobs that can be run now, in the order in which they are worth most.

        First every arm's learning rates, one rate after the other for all arms, then the other seeds, one seed after
        the other for all arms: a study that is stopped half way has equally much of each arm.

        Args:
            scores: Validation score of each finished job, by its name.
        """
        wanted = {arm.name: self._tuning(arm, scores) for arm in self.arms}
        longest = max(len(jobs) for jobs in wanted.values())
        for position in range(longest):
            for jobs in wanted.values():
                if position < len(jobs) and jobs[position].name not in scores:
                    yield jobs[position]
        for seed in self.seeds:
            for arm in self.arms:
                chosen = self.chosen_rate(arm, scores)
                if chosen is not None and (job := Job(arm, chosen, seed)).name not in scores:
                    yield job

    def chosen_rate(self, arm: Arm, scores: Mapping[str, float]) -> float | None:
        """The learning rate with the best validation score at the tuning seed; None while it is still being looked for.

        Args:
            arm: Whose learning rate.
            scores: Validation score of each finished job, by its name.
        """
        jobs = self._tuning(arm, scores)
        if any(job.name not in scores for job in jobs):
            return None
        return max(jobs, key=lambda job: scores[job.name]).lr

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
