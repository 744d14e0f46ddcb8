"""Where a finished model is made known beside its output: a repository of the Hugging Face hub, a model registry."""

from pydantic import Field

from alidade_crds.base import Name, Report, Spec, Uri, spec_config


class HubPush(Spec):
    """A repository of the Hugging Face hub that gets the model and its card, in one commit."""

    repository: str = Field(
        max_length=193,
        pattern=r"^[A-Za-z0-9][-_.A-Za-z0-9]*/[A-Za-z0-9][-_.A-Za-z0-9]*$",
        description="ORG/NAME; made when it does not exist.",
    )
    private: bool = Field(True, description="Whether a repository that is made is private; others stay as they are.")
    license: str | None = Field(
        None,
        max_length=64,
        pattern=r"^[-_.a-z0-9]+$",
        description="Licence that the card names, by the hub's word for it, such as apache-2.0; default: none.",
    )
    secret_name: Name | None = Field(
        None,
        description="Secret with the key HF_TOKEN, a token that may write there; default: the HF_TOKEN that "
        "compute.credentials or the node pool give the pods.",
    )


class MlflowRegistration(Spec):
    """A registered model of an MLflow server that gets a version, with a run that has the metrics."""

    model_config = spec_config(
        ("self.trackingUri.matches('^https?://.+')", "trackingUri must start with https:// or http://"),
        (
            "!has(self.alias) || !self.alias.matches('^([vV][0-9]+|latest)$')",
            "alias must not be latest or like v1, which MLflow keeps for itself",
        ),
    )

    tracking_uri: Uri = Field(description="The server.")
    name: str = Field(
        min_length=1, max_length=250, pattern=r"^[^/:'\"]+$", description="Registered model; made when there is none."
    )
    alias: str | None = Field(
        None,
        max_length=128,
        pattern=r"^[A-Za-z][-_A-Za-z0-9]*$",
        description="Alias that points to the newest version, such as candidate.",
    )
    experiment: str | None = Field(
        None, min_length=1, max_length=250, description="Experiment of the run; default: the namespace."
    )
    secret_name: Name | None = Field(
        None,
        description="Secret with the keys that MLflow's client takes from the environment: MLFLOW_TRACKING_TOKEN, or "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
    )


class Publish(Spec):
    """Where the finished model is made known beside its output: at least one of hub, mlflow."""

    model_config = spec_config(("has(self.hub) || has(self.mlflow)", "at least one of hub, mlflow must be set"))

    hub: HubPush | None = Field(None, description="The Hugging Face hub.")
    mlflow: MlflowRegistration | None = Field(None, description="The model registry of an MLflow server.")


class HubCommit(Report):
    """What a repository of the hub got."""

    repository: str = Field(max_length=193, description="ORG/NAME.")
    revision: str = Field(max_length=64, description="Commit that has the model.")
    url: str = Field(max_length=1024, description="The commit's page.")


class RegisteredVersion(Report):
    """What a model registry got."""

    name: str = Field(max_length=250, description="Registered model.")
    version: str = Field(max_length=32, description="Its version.")
    run_id: str | None = Field(None, max_length=64, description="Run that has the metrics.")


class Published(Report):
    """Where the model has been made known."""

    hub: HubCommit | None = Field(None, description="On the Hugging Face hub.")
    mlflow: RegisteredVersion | None = Field(None, description="In the model registry of an MLflow server.")

    def sentence(self) -> str:
        """The same for people."""
        told = []
        if self.hub is not None:
            told.append(f"pushed to {self.hub.repository} at {self.hub.revision[:12]}")
        if self.mlflow is not None:
            told.append(f"registered as version {self.mlflow.version} of {self.mlflow.name}")
        return f"It was {' and '.join(told)}."
