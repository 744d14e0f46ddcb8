"""The document that a job's container is told, in a ConfigMap."""

import hashlib
from collections.abc import Iterator

from alidade_crds.blocks import Dataset
from alidade_crds.contract import EvaluationDocument, JobDocument, QuantizationDocument
from alidade_crds.uris import REMOTE, Location, parse_uri
from alidade_operator.api import CONFIG_MAP, JsonObject
from alidade_operator.config import OperatorConfig
from alidade_operator.jobspecs import dataset_uris
from alidade_operator.resources.labels import child_labels, owner_reference
from alidade_operator.resources.publishing import credentials
from alidade_operator.resources.trainingpod import JOB_KEY, Mounts

Document = JobDocument | EvaluationDocument | QuantizationDocument


def document_name(base: str) -> str:
    """Name of the ConfigMap of a job whose names begin with `base`."""
    return f"{base}-job"


_DIGEST = "alidade.dev/digest"


def document_config_map(document: Document, name: str, component: str) -> JsonObject:
    """The ConfigMap of that name, which holds the document, and its digest."""
    owner, text = document.owner, document.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": child_labels(owner.kind, owner.name, component),
            "annotations": {_DIGEST: _digest(text)},
            "ownerReferences": [owner_reference(owner.kind, owner.name, owner.uid)],
        },
        "data": {JOB_KEY: text},
    }


def is_as_written(config_map: JsonObject) -> bool:
    """Whether nobody has edited the document since; of one without a digest, which is an older operator's, it is."""
    digest = (config_map["metadata"].get("annotations") or {}).get(_DIGEST)
    return digest is None or digest == _digest((config_map.get("data") or {}).get(JOB_KEY, ""))


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def document_mounts(document: Document, name: str, config: OperatorConfig) -> Mounts:
    """The volumes that the document, in the ConfigMap of that name, and its addresses need."""
    locations = [parse_uri(uri) for uri in _uris(document) if uri is not None]
    cache = config.cache_claim if any(location.scheme in REMOTE for location in locations) else None
    return Mounts(
        document=name,
        claims=tuple(sorted({*_roots(locations, "pvc"), *([cache] if cache is not None else [])})),
        config_maps=_roots(locations, "configmap"),
        cache=cache,
        environment=credentials(document.publish, document.tracking) if isinstance(document, JobDocument) else (),
    )


def _uris(document: Document) -> Iterator[str | None]:
    yield document.output
    if isinstance(document, EvaluationDocument):
        yield from _evaluated_uris(document)
        return
    yield document.model.uri
    if isinstance(document, QuantizationDocument):
        yield document.texts
        return
    if document.vocabulary is not None:
        yield document.vocabulary.extend_with.uri
    datasets: list[Dataset] = [document.dataset]
    if document.alignment is not None:
        yield from (reward.uri for reward in document.alignment.rewards)
        datasets += [step.dpo.dataset for step in document.alignment.steps if step.dpo is not None]
    for dataset in datasets:
        yield from (uri for _, uri in dataset_uris(dataset, ""))


def _evaluated_uris(document: EvaluationDocument) -> Iterator[str | None]:
    yield from (one.model.uri for one in document.models)
    for suite in document.suites:
        yield from (suite.dataset, suite.task_folder, suite.reward.uri if suite.reward is not None else None)
    if document.leak_check is not None:
        yield from document.leak_check.training_data


def _roots(locations: list[Location], scheme: str) -> tuple[str, ...]:
    return tuple(sorted({location.root for location in locations if location.scheme == scheme}))
