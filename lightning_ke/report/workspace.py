"""The dashboard of a project on Weights & Biases, as code: what `ke-report` shows, while the runs go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_ke.extras import import_extra
from lightning_ke.report.wandb import GENERATION

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

RATE = "ke.rate"
_SIDES = {"dense": "dense network", "fit": "fit hypothesis"}


def build_workspace(entity: str, project: str, metric: str = "val_acc") -> Workspace:
    """Build the dashboard; talks to no server.

    Args:
        entity: User or team.
        project: The project.
        metric: Name of the validation score, as the module logs it.

    Raises:
        ModuleNotFoundError: If wandb-workspaces is not installed.
    """
    ws = import_extra("wandb_workspaces.workspaces", "wandb")
    wr = import_extra("wandb_workspaces.reports.v2", "wandb")
    tested = f"test_{metric.removeprefix('val_')}"
    rate, last = wr.Config(RATE), {side: f"ke/generation_end/{side}/{metric}" for side in _SIDES}
    generations = [
        wr.LinePlot(
            title=f"{title}: {metric} per generation",
            x=GENERATION,
            y=[last[side]],
            title_x="generation",
            title_y=metric,
            groupby=rate,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for side, title in _SIDES.items()
    ]
    rates = [
        wr.ScatterPlot(title=f"{title}, last generation, against split rate", x=rate, y=wr.SummaryMetric(last[side]))
        for side, title in _SIDES.items()
    ]
    costs = [
        wr.ScatterPlot(
            title=f"{network} network: {tested} against operations",
            x=wr.SummaryMetric(f"networks/{network}/operations"),
            y=wr.SummaryMetric(f"networks/{network}/{tested}"),
        )
        for network in ("dense", "slim")
    ]
    columns = {
        "split rate": rate,
        "generations": wr.Config("ke.generations"),
        "epochs each": wr.Config("ke.epochs_per_generation"),
        "operations of the slim network": wr.SummaryMetric("networks/slim/operations"),
        f"dense {metric}": wr.SummaryMetric(last["dense"]),
        f"fit {metric}": wr.SummaryMetric(last["fit"]),
    }
    together = wr.ParallelCoordinatesPlot(
        title="What leads to which score",
        columns=[wr.ParallelCoordinatesPlotColumn(name, display_name=title) for title, name in columns.items()],
    )
    running = [
        wr.LinePlot(title=title, x="trainer/global_step", y=[name], title_y=metric)
        for title, name in (("dense network, epochs", metric), ("fit hypothesis, epochs", f"ke/fit/{metric}"))
    ]
    workspace: Workspace = ws.Workspace(
        entity=entity,
        project=project,
        name="Knowledge Evolution",
        sections=[
            ws.Section(name="Generations", panels=generations, is_open=True),
            ws.Section(name="Split rates", panels=[*rates, *costs], is_open=True),
            ws.Section(name="All together", panels=[together], is_open=True),
            ws.Section(name="Epochs", panels=running),
        ],
        runset_settings=ws.RunsetSettings(groupby=[ws.Config(RATE)]),
    )
    return workspace


def workspace_json(workspace: Workspace) -> str:
    """What would be sent to the server.

    Args:
        workspace: The dashboard.
    """
    # The library has no public way to look at what it saves.
    model: Any = workspace._to_model()
    text: str = model.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    return text
