"""The report of a run or a sweep: one page that needs nothing else, with pictures and numbers beside it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lightning_ke.extras import import_extra
from lightning_ke.report.charts import Chart, Spec, charts_of, mask_layers
from lightning_ke.report.lines import Line, Spread, differing, flatten, lines_of
from lightning_ke.report.runs import Run, read_runs
from lightning_ke.report.summary import Entry, metric_of_tests, summarise
from lightning_ke.report.table import Table
from lightning_ke.report.writing import write_together

# Okabe and Ito's colours first, darker or lighter where the ground asks for it.
_LIGHT = ["#0072b2", "#d55e00", "#00805e", "#a8478a", "#7a5c00", "#2b8fc7", "#444444", "#b8860b"]
_DARK = ["#56b4e9", "#ff8a4c", "#3dd6a3", "#e79bd0", "#e6c35c", "#a5d8ff", "#bbbbbb", "#f0e442"]


def write_report(root: Path, out: Path) -> list[Run]:
    """Write the page of all runs in a folder, and pictures and numbers beside it; all of them or, on failure, none.

    Args:
        root: A run folder, or the folder of a sweep.
        out: The page. The rest goes into a folder beside it that is called like it, with ``_files`` at the end.

    Returns:
        The runs that are in it.

    Raises:
        FileNotFoundError: If there is no run.
        OSError: If something cannot be written; then everything is as it was.
    """
    runs = read_runs(root)
    lines = lines_of(runs)
    monitor, mode = _monitor(runs)
    tested = metric_of_tests(lines, monitor)
    charts = charts_of(lines, monitor, tested, mode)
    entries = summarise(lines, monitor, tested)
    beside = out.with_name(f"{out.stem}_files")
    files = {beside / f"{chart.name}.png": picture(chart) for chart in charts}
    files |= {beside / f"{name}.csv": content for name, content in _numbers(lines, entries, monitor, tested).items()}
    title = f"Knowledge Evolution: {root.resolve().name}"
    files[out] = render(title, lines, charts, entries, monitor, tested, beside.name).encode()
    write_together(files)
    return runs


def picture(chart: Chart) -> bytes:
    """A chart as a PNG file.

    Args:
        chart: The chart.
    """
    converter = import_extra("vl_convert", "app")
    spec = {"width": 640, "height": 320, "title": chart.title, "padding": 12} | chart.spec
    image: bytes = converter.vegalite_to_png(spec, scale=2, config=theme("light") | {"background": "#ffffff"})
    return image


def render(
    title: str,
    lines: Sequence[Line],
    charts: Sequence[Chart],
    entries: Sequence[Entry],
    monitor: str,
    tested: str,
    beside: str,
) -> str:
    """The page.

    Args:
        title: Its heading.
        lines: The runs, by what they have in common.
        charts: The charts.
        entries: The paper's table.
        monitor: Name of the validation score.
        tested: Name of the score of the tested networks.
        beside: Name of the folder that holds pictures and numbers.
    """
    jinja = import_extra("jinja2", "app")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    runs = [run for line in lines for run in line.runs]
    differences, common = _configurations(lines)
    page: str = template.render(
        title=title,
        subtitle=_subtitle(lines),
        charts=charts,
        runs=runs,
        unfinished=[run for run in runs if run.state != "finished"],
        table=summary_table(entries, monitor, tested),
        table_note=_table_note(entries, monitor, tested),
        has_mask=any(chart.name == "mask" for chart in charts),
        differences=differences,
        common=common,
        environments=_environments(runs),
        run_table=_run_table(lines, monitor),
        specs=_script({chart.name: chart.spec for chart in charts}),
        themes=_script({name: theme(name) for name in ("light", "dark")}),
        vega=_vega(),
        version=_version(),
        beside=beside,
    )
    return page


def theme(name: str) -> Spec:
    """Colours of the charts.

    Args:
        name: ``"light"`` or ``"dark"``.
    """
    ink, soft, grid = ("#1b1f24", "#57606a", "#e1e5ea") if name == "light" else ("#e6edf3", "#9aa7b4", "#303942")
    colours = _LIGHT if name == "light" else _DARK
    text = {
        "labelColor": soft,
        "labelFontSize": 12,
        "titleColor": ink,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    legend = {"labelColor": ink, "labelLimit": 420, "orient": "bottom", "columns": 2, "symbolStrokeWidth": 2}
    return {
        "background": "transparent",
        "font": "system-ui, DejaVu Sans, sans-serif",
        "range": {"category": colours},
        "view": {"stroke": None},
        "axis": text | {"gridColor": grid, "domainColor": soft, "tickColor": soft, "labelOverlap": True},
        "legend": text | legend,
        "title": {"color": ink, "anchor": "start", "fontSize": 15},
        "bar": {"color": colours[0]},
        "line": {"color": colours[0]},
    }


def summary_table(entries: Sequence[Entry], monitor: str, tested: str) -> Table:
    """The paper's table, as text.

    Args:
        entries: Its rows.
        monitor: Name of the validation score.
        tested: Name of the score of the tested networks.

    Example:
        >>> print(summary_table([], "val_acc", "test_acc"))
        runs  network  seeds  val_acc  to N1  test_acc  operations  parameters
    """
    against_long = any(entry.gain_over_long is not None for entry in entries)
    columns = ["runs", "network", "seeds", monitor, "to N1"]
    columns += ["to long baseline"] if against_long else []
    columns += [tested] if tested != monitor else []
    columns += ["to long baseline (tested)"] if against_long and tested != monitor else []
    rows, previous = [], None
    for entry in entries:
        row = [
            entry.line.label if entry.line is not previous else "",
            f"{entry.network} N{entry.generation}",
            str(entry.score.count) if entry.score else "0",
            _range(entry.score),
            _change(entry.gain),
        ]
        row += [_change(entry.gain_over_long)] if against_long else []
        row += [_range(entry.tested)] if tested != monitor else []
        row += [_change(entry.tested_over_long)] if against_long and tested != monitor else []
        saved = "" if entry.saved is None else f" ({100 * entry.saved:+.1f} %)"
        row += [f"{_size(entry.operations)}{saved}", _size(entry.parameters)]
        rows.append(row)
        previous = entry.line
    return Table([*columns, "operations", "parameters"], rows)


def _table_note(entries: Sequence[Entry], monitor: str, tested: str) -> str:
    note = (
        f"N1, N2, ... are generations. {monitor}: on validation, after the generation; means over seeds, lowest and "
        "highest in brackets. To N1: against the dense network after generation 1, on validation. Operations: of one "
        "forward pass, multiply and add counted apart, in brackets against the dense network."
    )
    if tested != monitor:
        note += f" {tested}: of the weights that validation chose, tested once."
    if any(entry.gain_over_long is not None for entry in entries):
        note += " Long baseline: the dense network of runs of as many epochs in one generation."
    return note


def _subtitle(lines: Sequence[Line]) -> str:
    runs = [run for line in lines for run in line.runs]
    count = sum(run.state == "finished" for run in runs)
    seconds = sum(run.seconds or 0 for run in runs)
    parts = [f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}, {count} finished"]
    if len(lines) < len(runs):
        parts.append(f"{len(lines)} {'line' if len(lines) == 1 else 'lines'} of runs that differ in the seed alone")
    if seconds:
        parts.append(f"{_duration(seconds)} of training")
    return "; ".join(parts) + "."


def _configurations(lines: Sequence[Line]) -> tuple[Table, list[tuple[str, str]]]:
    configs = [line.settings for line in lines if line.settings]
    keys = differing(configs)
    rows = [[key, *(_text(config.get(key, "-")) for config in configs)] for key in keys]
    columns = ["", *(line.label for line in lines if line.settings)]
    run = next((run for line in lines for run in line.runs if run.config), None)
    whole = flatten(run.config) if run else {}
    seeds = list(dict.fromkeys(_text(run.seed) for line in lines for run in line.runs if run.config))
    common = [(key, ", ".join(seeds) if key == "seed" else _text(value)) for key, value in whole.items()]
    return Table(columns, rows), [(key, value) for key, value in common if key not in keys]


def _environments(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    found: list[tuple[list[str], dict[str, Any]]] = []
    for run in runs:
        flat = flatten(run.environment)
        same = next((names for names, values in found if values == flat), None)
        if same is not None:
            same.append(run.name)
        elif flat:
            found.append(([run.name], flat))
    return [
        (_listed(names, len(runs)), [(key, _text(value)) for key, value in values.items()]) for names, values in found
    ]


def _listed(names: Sequence[str], total: int) -> str:
    if len(names) == total:
        return "All runs" if total > 1 else "This run"
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _run_table(lines: Sequence[Line], monitor: str) -> Table:
    rows = []
    for line in lines:
        for run in line.runs:
            last = run.history[-1] if run.history else {}
            dense, fit = ((last.get(side) or {}).get(monitor) for side in ("dense", "fit"))
            first = line.repeated(run)
            repeats = f"not counted: the seed of {first.name} again" if first else ""
            rows.append(
                [
                    run.name,
                    run.state,
                    line.label,
                    _text(run.seed),
                    f"{len(run.history)} of {line.generations or '?'}",
                    _score(dense),
                    _score(fit),
                    "-" if run.seconds is None else _duration(run.seconds),
                    _size(run.training_operations),
                    "; ".join(filter(None, (run.error, repeats, *run.notes))),
                ]
            )
    columns = ["folder", "state", "line", "seed", "generations", f"dense {monitor}", f"fit {monitor}"]
    return Table([*columns, "time", "operations of training", "notes"], rows)


def _numbers(lines: Sequence[Line], entries: Sequence[Entry], monitor: str, tested: str) -> dict[str, bytes]:
    """The numbers of the page as CSV files: raw, and one row for each run where the page shows a mean."""
    table = [
        {
            "line": entry.line.label,
            "network": entry.network,
            "generation": entry.generation,
            **_columns(monitor, entry.score),
            **_columns(tested if tested != monitor else f"chosen {monitor}", entry.tested),
            "operations": entry.operations,
            "parameters": entry.parameters,
            "saved operations": entry.saved,
            "to N1": entry.gain,
            "to long baseline": entry.gain_over_long,
            "tested to long baseline": entry.tested_over_long,
        }
        for entry in entries
    ]
    pairs = [(line, run) for line in lines for run in line.runs]
    runs = [
        {"run": run.name, "line": line.label, "state": run.state, "error": run.error, "seed": run.seed}
        | {"rate": run.rate, "seconds": run.seconds, "training operations": run.training_operations}
        | {f"{network}/{key}": value for network, scores in run.networks.items() for key, value in scores.items()}
        for line, run in pairs
    ]
    generations = [
        {"run": run.name, "line": line.label, "seed": run.seed, "generation": record["generation"]}
        | {f"{side}/{name}": value for side in ("dense", "fit") for name, value in (record.get(side) or {}).items()}
        for line, run in pairs
        for record in run.history
    ]
    mask = [{"run": run.name} | row for _, run in pairs for row in mask_layers(run.mask)]
    tables = {"table": table, "runs": runs, "generations": generations, "mask": mask}
    return {name: _csv(rows) for name, rows in tables.items() if rows}


def _columns(name: str, spread: Spread | None) -> dict[str, float | None]:
    parts = ("mean", "low", "high") if spread else ()
    values: dict[str, float | None] = {f"{name} {part}": getattr(spread, part) for part in parts}
    return values | {f"{name} runs": spread.count if spread else 0}


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _monitor(runs: Iterable[Run]) -> tuple[str, str]:
    """The score that most runs watch; a report has one."""
    watched = [(run.monitor, run.mode) for run in runs]
    return max(watched, key=watched.count)


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed, which take seconds to put together, as one script."""
    script: str = import_extra("vl_convert", "app").javascript_bundle()
    return script.replace("</script", "<\\/script")


def _script(content: Any) -> str:
    """JSON that may stand in a script element, whatever strings it holds."""
    text = json.dumps(_finite(content), separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lightning-ke")
    except PackageNotFoundError:  # run from a source tree
        return "(source tree)"


def _range(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" + (f" ({spread.low:.4f}-{spread.high:.4f})" if spread.count > 1 else "")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _change(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _size(count: float | None) -> str:
    if count is None:
        return "-"
    steps = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    size, letter = next(((size, letter) for size, letter in steps if count >= size), (1, ""))
    return f"{count / size:.2f} {letter}" if letter else f"{count:g}"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _text(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
