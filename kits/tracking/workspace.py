"""The saved W&B workspace: the panels that matter, over the names that trainings log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kits.config import one_line
from kits.config.schema.commands import Dashboard
from kits.core.errors import KitsError
from kits.io import write_json
from kits.tracking import names
from kits.tracking.loggers import PLOT, STEP

# The project's saved views by their names, to update the one that has ours.
VIEWS = """
query Views($entity: String, $project: String) {
    project(name: $project, entityName: $entity) {
        allViews(viewType: "project-view") { edges { node { id name displayName } } }
    }
}
"""


def update_dashboard(options: Dashboard) -> str:
    """Save the workspace on the server, or its specification in a file where no server can be reached.

    Returns:
        Where it is now.

    Raises:
        KitsError: wandb-workspaces is not installed, or the server refuses the workspace.
    """
    import wandb

    workspace = build_workspace(options)
    path = Path(options.specification)
    if options.offline:
        return write_specification(workspace, path)
    try:
        api = wandb.Api(timeout=options.timeout_s)
        workspace.entity = options.entity or api.default_entity
        known = saved_view(api, workspace.entity, options.project, options.name)
    except Exception as error:
        print(f"W&B: {one_line(error)[:200]}")
        return write_specification(workspace, path)
    if known is not None:
        workspace._internal_id, workspace._internal_name = known["id"], known["name"]
    try:
        workspace.save()
    except Exception as error:
        raise KitsError(f"project={options.project}: W&B did not save the workspace: {one_line(error)[:200]}") from error
    return str(workspace.url)


def saved_view(api: Any, entity: str, project: str, name: str) -> dict[str, str] | None:
    """Find `id` and `name` of the project's saved view under a name; None where there is none."""
    from wandb_workspaces._graphql import execute_graphql

    found = execute_graphql(api, VIEWS, {"entity": entity, "project": project}).get("project") or {}
    views = [edge["node"] for edge in found.get("allViews", {}).get("edges", [])]
    return next((view for view in views if view["displayName"] == name), None)


def write_specification(workspace: Any, path: Path) -> str:
    """Write what would have been sent to the server."""
    view = workspace._to_model()
    spec = view.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"displayName": view.display_name, "entity": view.entity, "project": view.project, "spec": spec})
    return str(path)


def build_workspace(options: Dashboard) -> Any:
    """Build the workspace of `conf/dashboard.yaml`: curves by stage, sweeps, worst cases, and speed."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces.expr import Config
    except ImportError as error:
        raise KitsError("wandb-workspaces is not installed; pip install 'kits[dashboard]'") from error

    def curve(metrics: Sequence[str], title: str) -> Any:
        return wr.LinePlot(title=title, x=STEP, y=list(metrics))

    def score_curves(scores: Sequence[str]) -> list[Any]:
        return [curve([names.score_name(score)], score.replace("_", " ")) for score in scores]

    fine = [score for score in names.fine_scores(options.data.classes) if score != "mean"]
    losses = names.loss_names(len(getattr(options.model, "sources", ())), options.terms)
    axes = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in options.parameters]
    fields = dict(zip(("Actual", "Predicted", "nPredictions"), names.CONFUSION_COLUMNS, strict=True))
    sections = {
        "Fine stage": [*score_curves(fine), curve(losses, "loss: fused, its terms, each source")],
        "Coarse stage": [*score_curves(names.COARSE_SCORES), curve([names.LOSS], "loss")],
        "Sweeps": [
            wr.ParallelCoordinatesPlot(columns=[*axes, wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(names.SCORE))]),
            wr.ParameterImportancePlot(with_respect_to=names.SCORE),
            wr.ScalarChart(title="best score", metric=names.SCORE, groupby_aggfunc="max"),
        ],
        "Worst cases": [
            wr.WeavePanelSummaryTable(table_name=names.CASES),
            wr.MediaBrowser(title="the same cases", media_keys=[names.OVERLAYS]),
            wr.MediaBrowser(title="prediction and truth", media_keys=[names.SURFACES]),
            wr.CustomChart(query={"summaryTable": {"tableKey": names.CONFUSION_TABLE}}, chart_name=PLOT, chart_fields=fields),
        ],
        "Steps": [
            curve([names.LEARNING_RATE], "learning rate"),
            curve([names.GRADIENT_NORM], "gradient norm before clipping"),
            curve([names.SAMPLE_RATE], "samples a second"),
            curve([names.DATA_WAIT], "share of waiting for data"),
        ],
    }
    return ws.Workspace(
        entity=options.entity or "",
        project=options.project,
        name=options.name,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis=STEP),
        runset_settings=ws.RunsetSettings(groupby=[Config("stage")]),
        auto_generate_panels=False,
    )
