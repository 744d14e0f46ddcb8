"""Runs of an MLflow server that are found again by a tag, so that repeating an attempt makes no second one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def run_with_tag(client: "MlflowClient", experiment: str, tag: str, *, name: str, tags: Mapping[str, str]) -> "Run":
    """The experiment's run that has the tag as `tags` has it; a new one of that name, with all of them, without such.

    experiment: its name; made when there is none.
    """
    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known is not None else client.create_experiment(experiment)
    runs = client.search_runs([place], f"tags.`{tag}` = '{tags[tag]}'", max_results=1)
    return runs[0] if runs else client.create_run(place, run_name=name, tags=dict(tags))
