"""The studies: which arms are compared, in which setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.arms import catalogue
from benchmarks.accuracy.family import family
from benchmarks.accuracy.findings import FINDINGS
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.study import Study

# The one that suits most first: a study that is stopped early has run every arm at it. One of the two is the better one
# and lies at an edge, so a third one is tried on that side, and on, until the best one has a worse one on either side.
RATES = (0.128, 0.064)
CONTROLS = ("long", "slim-scratch")
PILOT = (
    *CONTROLS,
    "ke-5",
    "restarts-5",
    "llf-5",
    "llf-in-kels-5",
    "ke-10",
    "ke-3",
)
# On other data the controls, the restarts, what is redrawn and what did best; one learning rate for all.
SMALL_CONTROLS = ("slim-scratch", "slim-scratch-equal")
ELSEWHERE = (*CONTROLS, "ke-5", "restarts-5", "llf-5", "slim-llf-5", "slim-scratch-equal", "slim-llf-equal")


@dataclass(frozen=True)
class Plan:
    """A study before it is known where its data are.

    Args:
        title: Heading of its page.
        arms: Names of its arms; the first one is the dense long baseline.
        setting: Name of the setting.
        rates: Learning rates that are tried first.
        controls: Names of the controls of the slim size.
    """

    title: str
    arms: Sequence[str]
    setting: str = "flowers102"
    rates: Sequence[float] = RATES
    controls: Sequence[str] = ()

    def study(self, name: str, setting: str, data: str, seeds: Sequence[int]) -> Study:
        """The study.

        Args:
            name: Its name.
            setting: Name of the setting; empty for its own.
            data: The folder that holds all data sets.
            seeds: Seeds of the comparison.
        """
        own = SETTINGS[setting or self.setting]
        arms = catalogue(own)
        page = name if own.name == self.setting else f"{name}-{own.name}"
        return Study(
            page,
            f"{self.title} ({own.about})",
            own.name,
            [arms[arm] for arm in self.arms],
            "slim-scratch",
            own.overrides(data),
            self.rates,
            seeds,
            test_images=own.test_images,
            controls=self.controls,
            findings=FINDINGS.get(page, ""),
        )


_ABLATIONS = [
    *("reset-initial", "reset-normal", "reset-rewind", "reset-zero", "norm-reset"),
    *("optimizer-keep", "optimizer-clear", "schedule-continue", "rate-0.3", "rate-0.8"),
]
PLANS = {
    "pilot": Plan("Pilot: does evolving pay at equal length?", PILOT),
    "losses": Plan(
        "Splits and losses",
        [
            *PILOT,
            *("pruned", "distilled", "wels-5", "random-5", "ke-reestimated"),
            *(f"{arm}-{loss}" for loss in ("ce", "cs-kd") for arm in (*CONTROLS, "ke-5")),
        ],
    ),
    "cheaper": Plan(
        "Cheaper generations",
        [
            *(*CONTROLS, "ke-5", "ke-shrinking", "ke-one-cosine", "ke-plateau", "ke-slim-first-5"),
            *("ke-small-images", "slimmable-1", "slimmable-third", "ke-third", "long-third", "slim-scratch-third"),
            *("ke-slim-first-third", "llf-slim-first-third", "llf-5", "llf-third", "slim-llf-5"),
        ],
    ),
    "better": Plan(
        "Better generations",
        [
            *(*CONTROLS, "slim-scratch-equal", "pruned", "distilled", "long-ema", "slim-scratch-ema"),
            *("ke-5", "llf-in-kels-5"),
            *("ke-born-again", "ke-born-again-ema", "llf-in-kels-born-again", "ke-ema", "ke-wide-redraw", "ke-2"),
            *("ke-slim-last", "ke-taught", "slimmable-1", "slimmable-taught", "slimmable-taught-whole"),
            *("llf-5", "llf-10", "slim-llf-5", "slim-llf-10", "slim-llf-equal", "slim-restarts-equal"),
            *("slim-llf-taught", "distilled-llf"),
        ],
        controls=("slim-scratch", "pruned", "distilled", "slim-scratch-equal"),
    ),
    "full-width": Plan(
        "The best arms at full width",
        [*CONTROLS, "slim-scratch-equal", "llf-5", "slim-llf-equal"],
        "flowers102-wide",
        RATES[:1],
        controls=SMALL_CONTROLS,
    ),
    "noise20": Plan("Wrong labels", ELSEWHERE, "flowers102-noise20", RATES[:1], SMALL_CONTROLS),
    "noise40": Plan("Many wrong labels", ELSEWHERE, "flowers102-noise40", RATES[:1], SMALL_CONTROLS),
    "few-images": Plan("Five images a class", ELSEWHERE, "flowers102-5", RATES[:1], SMALL_CONTROLS),
    "eurosat": Plan("Land use", ELSEWHERE, "eurosat", RATES[:1], SMALL_CONTROLS),
    "dogs-cats": Plan("Dogs and cats", ELSEWHERE, "dogs-cats", RATES[:1], SMALL_CONTROLS),
    "ablations": Plan(
        "Ablations",
        [*CONTROLS, "restarts-5", "ke-5", *(f"ke-{name}" for name in _ABLATIONS)],
        "eurosat",
        RATES[:1],
    ),
}

#: From a setting's name (empty for the study's own), the folder of the data and the seeds to a study.
STUDIES: dict[str, Callable[[str, str, Sequence[int]], Study]] = {
    "family": family,
    **{
        name: (lambda setting, data, seeds, name=name, plan=plan: plan.study(name, setting, data, seeds))
        for name, plan in PLANS.items()
    },
}
