"""The job document: what a training container is told, in a ConfigMap."""

from collections.abc import Iterator

from alidade_crds.contract import JobDocument
from alidade_crds.uris import Location, parse_uri
from alidade_operator.api import CONFIG_MAP, JsonObject
from alidade_operator.jobspecs import dataset_uris
from alidade_operator.resources.labels import child_labels, owner_reference
from alidade_operator.resources.trainingpod import JOB_KEY, Mounts


def document_name(base: str) -> str:
    """Name of the ConfigMap of a job whose names begin with `base`."""
    return f"{base}-job"


def document_config_map(document: JobDocument, name: str) -> JsonObject:
    """The ConfigMap of that name, which holds the document."""
    owner = document.owner
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": child_labels(owner.kind, owner.name, "trainer"),
            "ownerReferences": [owner_reference(owner.kind, owner.name, owner.uid)],
        },
        "data": {JOB_KEY: document.model_dump_json(by_alias=True, exclude_none=True, indent=1)},
    }


def document_mounts(document: JobDocument, name: str) -> Mounts:
    """The volumes that the document, in the ConfigMap of that name, and its addresses need."""
    locations = [parse_uri(uri) for uri in _uris(document) if uri is not None]
    return Mounts(
        document=name,
        claims=_roots(locations, "pvc"),
        config_maps=_roots(locations, "configmap"),
    )


def _uris(document: JobDocument) -> Iterator[str | None]:
    yield document.model.uri
    yield document.output
    datasets = [document.dataset]
    if document.alignment is not None:
        yield from (reward.uri for reward in document.alignment.rewards)
        datasets += [step.dpo.dataset for step in document.alignment.steps if step.dpo is not None]
    for dataset in datasets:
        yield from (uri for _, uri in dataset_uris(dataset, ""))


def _roots(locations: list[Location], scheme: str) -> tuple[str, ...]:
    return tuple(sorted({location.root for location in locations if location.scheme == scheme}))
