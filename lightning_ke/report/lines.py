"""Runs beside each other: those that differ in the seed alone are one line; what the lines differ in names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_ke.report.runs import Run

# What says where and how loudly a run works, not what it computes.
_ASIDE = ("logger", "callbacks", "hydra", "resume", "threads", "trainer.enable_", "trainer.default_root_dir")
# Two lines that differ in nothing else train for comparison: a network that is not redrawn has no use for a split.
_EVOLUTION = ("generations.", "split.", "redraw.", "trainer.max_epochs")
# What lines are named by before anything else.
_WORDS = {
    "split._target_": "split",
    "split.rate": "rate",
    "split.start": "start",
    "generations.count": "generations",
    "generations.epochs": "epochs each",
    "redraw.reset": "reset",
    "backbone.name": "backbone",
    "backbone.width": "width",
    "optimizer.lr": "lr",
    "datamodule._target_": "data",
}
_LONGEST = 60


@dataclass(frozen=True)
class Spread:
    """Mean and range of a value over seeds.

    Args:
        mean: The mean.
        low: The lowest value.
        high: The highest value.
        count: How many values there are.
    """

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """The spread of those values that there are; None if there is none.

        Args:
            values: One value for each run, None for a run that has none.

        Example:
            >>> Spread.of([0.5, None, 0.7])
            Spread(mean=0.6, low=0.5, high=0.7, count=2)
        """
        found = [value for value in values if value is not None]
        return cls(sum(found) / len(found), min(found), max(found), len(found)) if found else None


@dataclass
class Line:
    """Runs that differ in the seed alone.

    Args:
        runs: The runs, finished or not.
        settings: Their configuration, flat, without what does not matter.
        label: What tells this line from the others.
        baseline: Whether it trains one generation only while other lines train more: a dashed line.
        long_baseline: The line of as many epochs in one generation and of the same configuration otherwise.
    """

    runs: list[Run]
    settings: Mapping[str, Any]
    label: str = ""
    baseline: bool = False
    long_baseline: Line | None = field(default=None, repr=False)

    @property
    def finished(self) -> list[Run]:
        """Those runs whose results count: of each seed the first, because a second one is no sample of its own."""
        seeds: dict[str, Run] = {}
        for run in self.runs:
            if run.state == "finished":
                seeds.setdefault(repr(run.seed), run)
        return list(seeds.values())

    def repeated(self, run: Run) -> Run | None:
        """The run of the same seed that counts instead of a finished one; None if that counts itself.

        Args:
            run: One of the line's runs.
        """
        counted = {repr(other.seed): other for other in self.finished}.get(repr(run.seed))
        return counted if run.state == "finished" and counted is not run else None

    @property
    def rate(self) -> float | None:
        """The split rate."""
        return self.runs[0].rate

    @property
    def generations(self) -> int | None:
        """How many generations are planned or, where the plan does not say, were closed."""
        count = self.settings.get("generations.count")
        epochs = self.settings.get("generations.epochs")
        if isinstance(count, int):
            return count
        if isinstance(epochs, list | tuple):
            return len(epochs)
        return max((len(run.history) for run in self.runs), default=0) or None

    @property
    def epochs(self) -> int | None:
        """How many epochs are planned in all generations together or, where the plan does not say, were trained."""
        count, epochs = self.settings.get("generations.count"), self.settings.get("generations.epochs")
        length = self.settings.get("trainer.max_epochs")
        if isinstance(length, int) and length > 0:
            return length
        if isinstance(epochs, list | tuple) and all(isinstance(number, int) for number in epochs):
            return sum(epochs)
        if isinstance(count, int) and isinstance(epochs, int):
            return count * epochs
        return max((sum(record["epochs"] for record in run.history) for run in self.runs), default=0) or None

    def last(self, network: str, metric: str) -> Spread | None:
        """A score of the finished runs' last generation.

        Args:
            network: ``"dense"`` or ``"fit"``.
            metric: Its name.
        """
        return Spread.of(score(run.history[-1], network, metric) for run in self.finished if run.history)

    def tested(self, network: str, key: str) -> Spread | None:
        """A figure of a network that was tested at the end.

        Args:
            network: ``"dense"`` or ``"slim"``.
            key: Name of the score, ``"operations"`` or ``"parameters"``.
        """
        return Spread.of(run.networks.get(network, {}).get(key) for run in self.finished)


def score(record: Mapping[str, Any], network: str, metric: str) -> float | None:
    """A score in a record of the history; None if it was not taken.

    Args:
        record: The record of a generation.
        network: ``"dense"`` or ``"fit"``.
        metric: Name of the score.
    """
    value: float | None = (record.get(network) or {}).get(metric)
    return value


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Put runs that differ in the seed alone together, name the lines, and find the baselines.

    Args:
        runs: The runs.

    Returns:
        The lines in the order of their first runs, baselines last.
    """
    lines: list[Line] = []
    for run, settings in zip(runs, comparable(runs), strict=True):
        line = next((line for line in lines if run.config and line.settings == settings), None)
        if line is None:
            lines.append(Line([run], settings))
        else:
            line.runs.append(run)
    evolving = any((line.generations or 0) > 1 for line in lines)
    for line in lines:
        line.baseline = evolving and line.generations == 1
    for line in lines:
        if not line.baseline:
            line.long_baseline = _long_baseline(line, lines)
    long = [line for line in lines if any(other.long_baseline is line for other in lines)]
    _name(lines, long)
    return sorted(lines, key=lambda line: line.baseline)


def comparable(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The configurations of runs, flat, without their seeds and without what says only where and how they are logged.

    A part of a run may have a seed of its own. It is left out where it is the run's seed, unless the same one stands in
    a run of another seed: then it is a constant, and the run's seed is like it by chance.

    Args:
        runs: The runs.

    Example:
        >>> from pathlib import Path
        >>> configs = [{"seed": seed, "split": {"seed": seed}, "data": {"seed": 0}, "logger": {}} for seed in (0, 1)]
        >>> comparable([Run(Path("a"), "a", config=config) for config in configs])
        [{'data.seed': 0}, {'data.seed': 0}]
    """
    flats = [
        {key: value for key, value in flatten(run.config).items() if key != "seed" and not key.startswith(_ASIDE)}
        for run in runs
    ]
    rests = [{key: value for key, value in flat.items() if not key.endswith(".seed")} for flat in flats]
    values = {key: {repr(flat.get(key)) for flat in flats} for flat in flats for key in flat if key.endswith(".seed")}

    def follows(index: int, key: str, value: Any) -> bool:
        """Whether a part's seed is that of its run."""
        if value != runs[index].seed or (len(values[key]) == 1 and len({repr(run.seed) for run in runs}) > 1):
            return False
        alike = (other for other, rest in enumerate(rests) if rest == rests[index])
        return all(flats[other].get(key) != value or runs[other].seed == value for other in alike)

    return [
        {key: value for key, value in flat.items() if key not in values or not follows(index, key, value)}
        for index, flat in enumerate(flats)
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration with one dotted key for each value.

    Args:
        config: The configuration.
        prefix: What the keys begin with.

    Example:
        >>> flatten({"split": {"rate": 0.5}, "seed": 0})
        {'split.rate': 0.5, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which flat configurations differ.

    Args:
        configs: The configurations.

    Example:
        >>> differing([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}])
        ['b', 'c']
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    absent = object()
    return [key for key in keys if any(c.get(key, absent) != configs[0].get(key, absent) for c in configs[1:])]


def _long_baseline(line: Line, lines: Sequence[Line]) -> Line | None:
    def rest(other: Line) -> dict[str, Any]:
        return {key: value for key, value in other.settings.items() if not key.startswith(_EVOLUTION)}

    def split(other: Line) -> dict[str, Any]:
        return {key: value for key, value in other.settings.items() if key.startswith("split.")}

    equal = [other for other in lines if other.baseline and other.epochs == line.epochs and rest(other) == rest(line)]
    # Its dense network does not depend on the split; the one of the same split has the right slim network, too.
    return min(equal, key=lambda other: split(other) != split(line), default=None)


def _name(lines: Sequence[Line], long: Sequence[Line]) -> None:
    texts: dict[int, str] = {}
    for pool in ([line for line in lines if line.baseline], [line for line in lines if not line.baseline]):
        texts |= zip(map(id, pool), _differences(pool), strict=True)
    for line, text in zip(long, _differences(long), strict=True):
        texts[id(line)] = f"long baseline ({text})" if text else "long baseline"
    for line in lines:
        if line.baseline and line not in long:
            texts[id(line)] = f"one generation, {texts[id(line)]}".removesuffix(", ")
    taken: set[str] = set()
    for line in lines:
        first = line.runs[0]
        number = line.generations
        text = texts[id(line)] or (f"{number} generations" if number and len(lines) > 1 else _own_name(first))
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        line.label = text if text not in taken else f"{text} [{first.name}]"
        taken.add(line.label)


def _differences(lines: Sequence[Line]) -> list[str]:
    """For each line the fewest settings that tell it from the others, those that people look at first."""
    known = [line for line in lines if line.settings]
    order = list(_WORDS)
    keys = differing([line.settings for line in known])
    # How a network would have evolved tells little of runs in which nothing is redrawn.
    keys.sort(
        key=lambda key: (
            all(line.baseline for line in known) and key.startswith(_EVOLUTION),
            order.index(key) if key in _WORDS else len(order),
            key.count("."),
        )
    )
    chosen: list[str] = []
    groups = [""] * len(known)
    for key in keys:
        finer = [f"{group}|{line.settings.get(key)!r}" for group, line in zip(groups, known, strict=True)]
        if len(set(finer)) > len(set(groups)):
            chosen.append(key)
            groups = finer
    return [
        ", ".join(f"{_word(key)} {_brief(line.settings[key])}" for key in chosen if key in line.settings)
        for line in lines
    ]


def _own_name(run: Run) -> str:
    return run.folder.resolve().name if run.name == "." else run.name


def _word(key: str) -> str:
    return _WORDS.get(key, key.removesuffix("._target_"))


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith("lightning_ke.") else value
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else str(value)
