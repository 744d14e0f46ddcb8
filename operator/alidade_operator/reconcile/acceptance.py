"""Whether a training job can be launched here: a chain of checks, each of which answers a refusal or nothing."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from alidade_crds.blocks import Compute, Model
from alidade_crds.jobs import JobBlocks, TrainingJobSpec
from alidade_crds.reasons import FINAL, Reason
from alidade_crds.uris import REMOTE, Location, UriError, parse_uri
from alidade_operator.conditions import Truth
from alidade_operator.config import OperatorConfig
from alidade_operator.jobspecs import addresses, urls
from alidade_operator.reconcile.backends import backend_of
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.attempt import processes_per_worker
from alidade_operator.resources.observation import Observed, SourceView

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Refusal:
    """Why a resource is not accepted: status False, or Unknown while something else has to come first."""

    reason: Reason
    message: str
    status: Truth = "False"

    @property
    def is_final(self) -> bool:
        """Whether nothing that is made beside the resource answers it, as a claim or another resource could."""
        return self.status == "False" and self.reason in FINAL


def foremost(found: Iterable[Refusal | None]) -> Refusal | None:
    """Of objections the first that only another spec answers, else the first; None without any.

    So whoever applies a resource is told what is theirs to change before what may yet come by itself.
    """
    objections = [one for one in found if one is not None]
    return next((one for one in objections if one.is_final), objections[0] if objections else None)


@dataclass(frozen=True)
class Candidate:
    """A training job whose spec could be parsed, with all that the checks look at.

    field: where the spec stands in the resource; a run's templates stand deeper.
    """

    job: TrainingJob
    spec: TrainingJobSpec
    observed: Observed
    config: OperatorConfig
    field: str = "spec"


def refusal(candidate: Candidate) -> Refusal | None:
    """The foremost objection to launching, or None."""
    return foremost(check(candidate) for check in _CHECKS)


def _training_operator(candidate: Candidate) -> Refusal | None:
    backend = backend_of(candidate.spec.compute, candidate.config)
    if backend.kind.kind not in candidate.observed.missing_kinds:
        return None
    return Refusal(
        Reason.TRAINING_OPERATOR_MISSING,
        f"The cluster has no {backend.kind.kind} ({backend.kind.api_version}). Install {backend.needs}.",
    )


def _name(candidate: Candidate) -> Refusal | None:
    compute = candidate.spec.compute
    longest = backend_of(compute, candidate.config).longest_name(workers=compute.workers)
    return name_refusal(candidate.job, longest, workers=compute.workers)


def name_refusal(job: TrainingJob, longest: int, *, workers: int) -> Refusal | None:
    """The objection to a resource's name, of which names of pods are made. longest: that a base may be."""
    name = job.name
    limit = longest - (len(job.base) - len(name))
    if len(name) > limit:
        return Refusal(
            Reason.NAME_TOO_LONG,
            f"metadata.name has {len(name)} characters; with {workers} {_plural('worker', workers)} at most {limit} "
            "leave the pods' names within 63. Apply it under a shorter name.",
        )
    if not _DNS_1035.fullmatch(name):
        return Refusal(
            Reason.INVALID_SPEC,
            f"metadata.name is {name}; pods and services are named after it, so it must start with a letter and hold "
            "only lower-case letters, digits and '-'. Apply it under another name.",
        )
    return None


def _elastic(candidate: Candidate) -> Refusal | None:
    pool = candidate.config.pool(candidate.spec.compute.node_pool)
    if candidate.spec.elastic is None or pool is None or pool.gang_scheduling is None:
        return None
    return Refusal(
        Reason.INVALID_SPEC,
        f"{candidate.field}.elastic is set; pool {pool.name} schedules gangs, of which all pods find nodes or none. "
        "Leave it out, or name another pool.",
    )


def _node_pool(candidate: Candidate) -> Refusal | None:
    return node_pool_refusal(candidate.spec.compute, candidate.config, candidate.field)


def node_pool_refusal(compute: Compute, config: OperatorConfig, at: str) -> Refusal | None:
    """The objection to what is asked of a node pool, or None. at: the field of the spec that it stands in."""
    pool = config.pool(compute.node_pool)
    if pool is None:
        known = ", ".join(pool.name for pool in config.node_pools)
        return Refusal(
            Reason.NODE_POOL_UNKNOWN,
            f"{at}.compute.nodePool is {compute.node_pool}; the configured pools are {known}. "
            "Name one of them, or have the pool added to the operator's configuration.",
        )
    gpus, offered = compute.gpus_per_worker, pool.gpus_per_node
    if gpus > offered and offered == 0:
        return Refusal(
            Reason.TOO_MANY_GPUS,
            f"{at}.compute.gpusPerWorker is {gpus}; pool {pool.name} has no GPUs. "
            "Set it to 0 to train on the CPU, or name a pool with GPUs.",
        )
    if gpus > offered:
        workers = -(-gpus * compute.workers // offered)
        return Refusal(
            Reason.TOO_MANY_GPUS,
            f"{at}.compute.gpusPerWorker is {gpus}; pool {pool.name} has nodes of {offered}. "
            f"Use {workers} workers of {offered}.",
        )
    processes = compute.processes_per_worker
    if processes is not None and gpus and processes > gpus:
        return Refusal(
            Reason.INVALID_SPEC,
            f"{at}.compute.processesPerWorker is {processes}; a worker has {gpus} GPUs. "
            f"Set it to {gpus} or less, or leave it out.",
        )
    return None


def _batch_size(candidate: Candidate) -> Refusal | None:
    """The trainer refuses the same, but only once it holds its GPUs."""
    training, compute = candidate.spec.training, candidate.spec.compute
    processes = compute.workers * processes_per_worker(compute)
    share, rest = divmod(training.global_batch_size, processes)
    if rest:
        multiple = max(1, round(training.global_batch_size / processes)) * processes
        return Refusal(
            Reason.INVALID_SPEC,
            f"{candidate.field}.training.globalBatchSize is {training.global_batch_size}; it must be a multiple "
            f"of the {processes} training processes ({compute.workers} {_plural('worker', compute.workers)} of "
            f"{processes_per_worker(compute)}), such as {multiple}.",
        )
    micro = training.micro_batch_size
    if micro != "auto" and share % micro:
        divisor = next(size for size in range(min(micro, share), 0, -1) if share % size == 0)
        return Refusal(
            Reason.INVALID_SPEC,
            f"{candidate.field}.training.microBatchSize is {micro}; it must divide the {share} sequences of "
            f"each process ({candidate.field}.training.globalBatchSize of {training.global_batch_size} over "
            f"{processes} processes). Set it to {divisor}.",
        )
    return None


def _uris(candidate: Candidate) -> Refusal | None:
    return uris_refusal(candidate.spec, candidate.field, candidate.job.namespace, candidate.observed, candidate.config)


def uris_refusal(
    spec: JobBlocks, at: str, namespace: str, observed: Observed, config: OperatorConfig
) -> Refusal | None:
    """The foremost objection to an address of a spec that is of no use, or None."""
    return foremost(_uri_objections(spec, at, namespace, observed, config))


def _uri_objections(
    spec: JobBlocks, at: str, namespace: str, observed: Observed, config: OperatorConfig
) -> Iterator[Refusal | None]:
    for field, uri in addresses(spec, at):
        yield uri_refusal(field, uri, namespace, observed, config, output=field == f"{at}.output.uri")
    for field, url in urls(spec, at):
        yield host_refusal(field, url, config)


def uri_refusal(
    field: str, uri: str, namespace: str, observed: Observed, config: OperatorConfig, *, output: bool = False
) -> Refusal | None:
    """The objection to one address, or None. output: whether something is to be written there."""
    location = location_of(field, uri, "data", config)
    if isinstance(location, Refusal):
        return location
    return (
        (_output_place(field, location) if output else None)
        or volume_refusal(field, location, namespace, observed)
        or _cache_refusal(field, location, namespace, observed, config)
    )


def _cache_refusal(
    field: str, location: Location, namespace: str, observed: Observed, config: OperatorConfig
) -> Refusal | None:
    claim = config.cache_claim
    if location.scheme not in REMOTE or claim is None or claim in observed.claims:
        return None
    return Refusal(
        Reason.VOLUME_MISSING,
        f"{field} is {location}; what is fetched is kept on claim {claim}, which namespace {namespace} does not have. "
        "Create the PersistentVolumeClaim; the job goes on by itself.",
    )


def location_of(field: str, uri: str, what: str, config: OperatorConfig) -> Location | Refusal:
    """Where an address leads, or the objection to it as it is written. what: lies there, in one word."""
    try:
        location = parse_uri(uri)
    except UriError as error:
        return Refusal(Reason.INVALID_SPEC, f"{field}: {error}.")
    if location.scheme == "file" and not config.allow_file_uris:
        return Refusal(
            Reason.FILE_URI_NOT_ALLOWED,
            f"{field} is {uri}; file:// addresses work on the local cluster only. "
            f"Put the {what} on a volume and write pvc://CLAIM/PATH.",
        )
    return host_refusal(field, uri, config) or location


def host_refusal(field: str, url: str, config: OperatorConfig) -> Refusal | None:
    """The objection to an address whose host pods may not be sent to, or None."""
    found = config.hosts.objection(url)
    if found is None:
        return None
    if not found.host:  # the address is not repeated: what cannot be read may hold a password
        return Refusal(Reason.HOST_NOT_ALLOWED, f"{field} {found.why}. Write https://HOST/PATH.")
    return Refusal(
        Reason.HOST_NOT_ALLOWED,
        f"{field} {found.why}. Name a public host, or have {found.host} added to allowedHosts of the operator's "
        "configuration.",
    )


def _output_place(field: str, location: Location) -> Refusal | None:
    if location.scheme == "pvc" and not location.path:
        return Refusal(
            Reason.INVALID_SPEC,
            f"{field} is {location}, the root of the volume. Name a folder of its own: {location}/NAME.",
        )
    return None


def volume_refusal(field: str, location: Location, namespace: str, observed: Observed) -> Refusal | None:
    """The objection to a claim or ConfigMap that is not there, or None."""
    if location.scheme == "pvc" and location.root not in observed.claims:
        return Refusal(
            Reason.VOLUME_MISSING,
            f"{field} names claim {location.root}, which namespace {namespace} does not have. "
            "Create the PersistentVolumeClaim; the job goes on by itself.",
        )
    if location.scheme != "configmap":
        return None
    keys = observed.config_maps.get(location.root)
    if keys is None:
        return Refusal(
            Reason.CONFIG_MAP_MISSING,
            f"{field} names ConfigMap {location.root}, which namespace {namespace} does not have. "
            "Create it; the job goes on by itself.",
        )
    if location.path not in keys:
        return Refusal(
            Reason.CONFIG_MAP_MISSING,
            f"{field} names key {location.path} of ConfigMap {location.root}, which has "
            f"{_listed(sorted(keys)) or 'no keys'}. Add the key; the job goes on by itself.",
        )
    return None


def _workspace(candidate: Candidate) -> Refusal | None:
    return workspace_refusal(
        candidate.spec, candidate.field, candidate.job.namespace, candidate.observed, candidate.config
    )


def workspace_refusal(
    spec: JobBlocks, at: str, namespace: str, observed: Observed, config: OperatorConfig
) -> Refusal | None:
    """The objection to an output without a place, or None."""
    claim = config.workspace_claim
    if spec.output is not None or claim in observed.claims:
        return None
    return Refusal(
        Reason.WORKSPACE_MISSING,
        f"Namespace {namespace} has no claim {claim}, where outputs go. "
        f"Create the PersistentVolumeClaim, or set {at}.output.uri.",
    )


def _source(candidate: Candidate) -> Refusal | None:
    source, view = candidate.spec.model.from_, candidate.observed.source
    if source is None:
        return None
    assert view is not None, "a named source is always observed"
    named = f"{source.kind} {source.name}"
    if candidate.observed.source_circle:
        return Refusal(
            Reason.REFERENCE_CYCLE,
            f"{candidate.field}.model.from names {named}, and so on in a circle: "
            f"{' → '.join(candidate.observed.source_circle)}. "
            f"Let one of them start from {candidate.field}.model.uri.",
        )
    return source_refusal(f"{candidate.field}.model", named, view) or _source_model(candidate, named, view)


def source_refusal(field: str, named: str, view: SourceView) -> Refusal | None:
    """The objection to a resource that has no model yet, or None. field: the model's; named: kind and name."""
    if not view.exists:
        return _pending(f"{field}.from names {named}, which does not exist yet.")
    if view.failed:
        return Refusal(
            Reason.REFERENCE_FAILED,
            f"{field}.from names {named}, which has failed. Mend it under the same name, and the "
            "job goes on by itself.",
        )
    if not view.succeeded:
        return _pending(f"Waiting for {named} to succeed.")
    if view.model is None:
        return _pending(f"{named} has succeeded, but reports no model yet.")
    return None


def _source_model(candidate: Candidate, named: str, view: SourceView) -> Refusal | None:
    assert view.model is not None, "asked by source_refusal"
    try:
        location = parse_uri(view.model.uri)
    except UriError as error:
        return Refusal(Reason.REFERENCE_FAILED, f"{named} reports a model that cannot be used: {error}.")
    return volume_refusal(f"the model of {named}", location, candidate.job.namespace, candidate.observed)


def _pending(message: str) -> Refusal:
    return Refusal(Reason.REFERENCE_PENDING, message, "Unknown")


def model_of(spec_model: Model, source: SourceView | None) -> tuple[str | None, str | None]:
    """Address and expected digest of the model that training starts from; (None, None) for one from scratch."""
    if spec_model.from_ is None:
        return spec_model.address, None
    assert source is not None, "a named source is always observed"
    assert source.model is not None, "checked before the launch"
    return source.model.uri, source.model.digest


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _listed(words: list[str], limit: int = 10) -> str:
    shown = ", ".join(words[:limit])
    return f"{shown} and {len(words) - limit} more" if len(words) > limit else shown


_CHECKS: tuple[Callable[[Candidate], Refusal | None], ...] = (
    _training_operator,
    _name,
    _node_pool,
    _elastic,
    _batch_size,
    _uris,
    _workspace,
    _source,
)
