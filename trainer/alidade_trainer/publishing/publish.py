"""What happens with a finished model beside its output, as the job document asks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from alidade_crds.contract import HUB_TOKEN_ENV, JobDocument, ResultDocument
from alidade_crds.publishing import HubCommit, Publish, Published, RegisteredVersion
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import fingerprint
from alidade_trainer.publishing.hub import push
from alidade_trainer.publishing.refusal import Refusal
from alidade_trainer.publishing.registry import Entry, register


def publish_model(
    to: Publish,
    job: JobDocument,
    result: ResultDocument,
    *,
    output: Path,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> ResultDocument:
    """The result, with where its model has been made known; as often as it is done, the same comes of it.

    result: with the model. output: local folder of the job's output, which is complete. Raises JobFailure
    (PublishFailed).
    """
    owner, model = job.owner, result.model
    assert model is not None, "there is something to publish"
    commit: HubCommit | None = None
    version: RegisteredVersion | None = None
    if to.hub is not None:
        with _told(job, "hub.repository", to.hub.repository):
            message = f"{owner.kind} {owner.namespace}/{owner.name}: {model.digest}"
            commit = push(output / "model", to.hub, message=message, token=environ.get(HUB_TOKEN_ENV))
        say(f"The model is on the hub: {commit.url}")
    if to.mlflow is not None:
        with _told(job, "mlflow.name", to.mlflow.name):
            version = register(to.mlflow, Entry(model, result.metrics, owner, fingerprint(job)))
        say(f"The model is version {version.version} of {version.name} at {to.mlflow.tracking_uri}.")
    return result.model_copy(update={"published": Published(hub=commit, mlflow=version)})


@contextmanager
def _told(job: JobDocument, field: str, value: str) -> Iterator[None]:
    """Makes a refusal within the failure of the job."""
    try:
        yield
    except Refusal as refusal:
        raise JobFailure(
            FailureReason.PUBLISH_FAILED,
            f"The model is complete at {job.output}/model, but publish.{field} is {value}, and {refusal}. Nothing has "
            f"to be trained again: the next attempt, or another job with output.uri {job.output}, only publishes.",
            refusal.retryable,
        ) from refusal
