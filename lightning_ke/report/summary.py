"""The paper's table of a sweep: what each generation's networks score, what they cost, and what that is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_ke.report.lines import Line, Spread, score


@dataclass(frozen=True)
class Entry:
    """One network of one line, over all its finished runs.

    Args:
        line: The line.
        network: ``"dense"``, ``"slim"``, or ``"fit"`` for the fit hypothesis of a split without a slim network.
        generation: The generation after which it was scored.
        score: Its validation score after that generation, with the range over seeds.
        tested: Its test score, if it is one of the networks that validation chose; else None.
        operations: Operations of one forward pass of one sample, if known.
        parameters: Number of parameters, if known.
        saved: Operations, as a share of the dense network's more (+) or fewer (-).
        gain: Score minus the dense network's after generation 1, the mean over the seeds.
        gain_over_long: Score minus the long baseline's, the mean over seeds; None if there is no such baseline.
        tested_over_long: The same of the test scores.
    """

    line: Line
    network: str
    generation: int
    score: Spread | None
    tested: Spread | None
    operations: float | None
    parameters: float | None
    saved: float | None
    gain: float | None
    gain_over_long: float | None
    tested_over_long: float | None


def metric_of_tests(lines: Sequence[Line], monitor: str) -> str:
    """The score by which the tested networks are compared: on test images if all have it, else the one that chose them.

    Args:
        lines: The lines.
        monitor: Name of the validation score.
    """
    name = f"test_{monitor.removeprefix('val_')}"
    finished = [run for line in lines for run in line.finished if run.networks]
    return name if all(name in scores for run in finished for scores in run.networks.values()) else monitor


def summarise(lines: Sequence[Line], monitor: str, tested: str) -> list[Entry]:
    """The paper's table: the dense network after the first and the last generation, the slim or fit one after the last.

    Args:
        lines: The lines; those without a finished run have no entries.
        monitor: Name of the validation score.
        tested: Name of the test score.
    """
    return [entry for line in lines for entry in _entries(line, monitor, tested)]


def _entries(line: Line, monitor: str, tested: str) -> Iterator[Entry]:
    runs = [run for run in line.finished if run.history]
    if not runs:
        return
    first = Spread.of(score(run.history[0], "dense", monitor) for run in runs)
    last_generation = max(run.history[-1]["generation"] for run in runs)
    whole = line.tested("dense", "operations")
    kinds = [("dense", "dense", 1)] if last_generation > 1 else []
    kinds.append(("dense", "dense", last_generation))
    # Nothing has been redrawn in a baseline: its fit hypothesis is no network that anybody would use.
    if line.last("fit", monitor) is not None and not line.baseline:
        slim = line.tested("slim", "operations") is not None
        kinds.append(("slim" if slim else "fit", "fit", last_generation))
    for network, side, generation in kinds:
        final = generation == last_generation
        reached = line.last(side, monitor) if final else first
        on_test = line.tested(network, tested) if final else None
        operations, parameters = line.tested(network, "operations"), line.tested(network, "parameters")
        long = line.long_baseline
        yield Entry(
            line,
            network,
            generation,
            reached,
            on_test,
            operations.mean if operations else None,
            parameters.mean if parameters else None,
            operations.mean / whole.mean - 1 if operations and whole and network != "dense" else None,
            _minus(reached, first) if network != "dense" or generation > 1 else None,
            _minus(reached, long.last("dense", monitor)) if long else None,
            _minus(on_test, long.tested("dense", tested)) if long else None,
        )


def _minus(one: Spread | None, other: Spread | None) -> float | None:
    return None if one is None or other is None else one.mean - other.mean


def pareto_front(points: Sequence[tuple[float, float]], mode: str = "max") -> list[int]:
    """The points that no other one beats in cost and score, cheapest first.

    Args:
        points: Cost and score of each.
        mode: Whether more (``"max"``) or less (``"min"``) of the score is better.

    Returns:
        Their indices.

    Example:
        >>> pareto_front([(4, 0.75), (16, 0.76), (16, 0.77), (9, 0.70)])
        [0, 2]
    """
    sign = 1 if mode == "max" else -1
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -sign * points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or sign * points[index][1] > sign * points[front[-1]][1]:
            front.append(index)
    return front
