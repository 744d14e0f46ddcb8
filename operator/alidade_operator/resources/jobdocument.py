"""The job document: what a training container is told, in a ConfigMap."""

from collections.abc import Iterator

from alidade_crds.blocks import Dataset
from alidade_crds.contract import JobDocument
from alidade_crds.uris import Location, parse_uri
from alidade_operator.api import CONFIG_MAP, JsonObject
from alidade_operator.resources.labels import child_labels, owner_reference
from alidade_operator.resources.trainingpod import JOB_KEY, Mounts


def document_name(name: str) -> str:
    """Name of the ConfigMap."""
    return f"{name}-job"


def document_config_map(document: JobDocument) -> JsonObject:
    """The ConfigMap that holds the document."""
    owner = document.owner
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {
            "name": document_name(owner.name),
            "namespace": owner.namespace,
            "labels": child_labels(owner.kind, owner.name, "trainer"),
            "ownerReferences": [owner_reference(owner.kind, owner.name, owner.uid)],
        },
        "data": {JOB_KEY: document.model_dump_json(by_alias=True, exclude_none=True, indent=1)},
    }


def dataset_uris(dataset: Dataset, field: str) -> Iterator[tuple[str, str]]:
    """Every address of a dataset, with the field that holds it."""
    yield f"{field}.uri", dataset.uri
    if dataset.validation is not None and dataset.validation.uri is not None:
        yield f"{field}.validation.uri", dataset.validation.uri
    for index, part in enumerate(dataset.mix):
        yield f"{field}.mix[{index}].uri", part.uri


def document_mounts(document: JobDocument) -> Mounts:
    """The volumes that the document's addresses need."""
    uris = [uri for _, uri in dataset_uris(document.dataset, "dataset")]
    uris += [uri for uri in (document.model.uri, document.output) if uri is not None]
    locations = [parse_uri(uri) for uri in uris]
    return Mounts(
        document=document_name(document.owner.name),
        claims=_roots(locations, "pvc"),
        config_maps=_roots(locations, "configmap"),
    )


def _roots(locations: list[Location], scheme: str) -> tuple[str, ...]:
    return tuple(sorted({location.root for location in locations if location.scheme == scheme}))
