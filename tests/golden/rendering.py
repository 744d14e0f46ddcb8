"""What the operator makes of every example on a cluster with two pools of A100, Kueue and the Prometheus operator.

python -m tests.golden.rendering writes the files beside this one; a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alidade_crds.status import ModelInfo
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CLAIM,
    CONFIG_MAP,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    PARENT_KINDS,
    REWARD_MODEL,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    Kind,
)
from alidade_operator.config import OperatorConfig, read_config
from alidade_operator.reconcile.modelserve import plan_model_serve
from alidade_operator.reconcile.plan import Plan, TrainingJob
from alidade_operator.reconcile.serve import ModelServe, ServeObserved
from alidade_operator.reconcile.trainingjob import plan_training_job
from alidade_operator.resources.observation import Observed, SourceView
from alidade_operator.resources.trainjob import digest_of
from tests.operator.builders import NOW
from tests.operator.memory import NAMESPACE, MemoryCluster

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parents[1] / "examples"
CONFIG_FILE = EXAMPLES / "gpu" / "operator.yaml"
# Of this example it is also kept what is made where training jobs are TrainJobs.
AS_TRAINJOB = EXAMPLES / "gpu" / "finetune.yaml"
_NOTE = "# What the operator makes of examples/{}: python -m tests.golden.rendering. Review every change.\n"
_TRAINJOB_NOTE = "# With trainingBackend: TrainJob.\n"
_WORKSPACE = "alidade-workspace"


class _Dumper(yaml.SafeDumper):
    """Writes everything out where it stands."""

    def ignore_aliases(self, data: Any) -> bool:
        """What is the same twice is written twice, as it is sent."""
        del data
        return True


def examples() -> list[Path]:
    """Every manifest among the examples that holds whole resources of ours; promote.sh's is a patch."""
    found = sorted(path for path in EXAMPLES.rglob("*.yaml") if path.name != "model.yaml")
    return [path for path in found if any(item.get("apiVersion") == "alidade.dev/v1alpha1" for item in documents(path))]


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item]


def golden_file(example: Path) -> Path:
    """Where what is made of an example is kept."""
    return FOLDER / "-".join(example.relative_to(EXAMPLES).parts)


def golden_files() -> dict[Path, str]:
    """Path and text of every golden file."""
    config = read_config(CONFIG_FILE)
    files = {golden_file(example): _text(example, config) for example in examples()}
    with_trainjobs = config.model_copy(update={"training_backend": TRAIN_JOB.kind})
    return files | {trainjob_file(AS_TRAINJOB): _TRAINJOB_NOTE + _text(AS_TRAINJOB, with_trainjobs)}


def trainjob_file(example: Path) -> Path:
    """Where what is made of an example with TrainJobs is kept."""
    golden = golden_file(example)
    return golden.with_stem(f"{golden.stem}-trainjob")


def _text(example: Path, config: OperatorConfig) -> str:
    children = [_short(child) for body in documents(example) for child in rendered(body, config)]
    text = yaml.dump_all(children, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return _NOTE.format(example.relative_to(EXAMPLES)) + text


def _short(body: dict[str, Any]) -> dict[str, Any]:
    """A ConfigMap's document on fewer lines; everything else as it is."""
    if body["kind"] != CONFIG_MAP.kind:
        return body
    return body | {"data": {key: json.dumps(json.loads(text)) for key, text in body["data"].items()}}


def rendered(body: dict[str, Any], config: OperatorConfig) -> list[dict[str, Any]]:
    """The children of a resource, and in a run those of its stages up to the alignment."""
    kind = next(kind for kind in PARENT_KINDS if kind.kind == body["kind"])
    if kind is ALIGNMENT_RUN:
        return list(_of_run(body, config))
    metadata = {"namespace": NAMESPACE, "uid": f"uid-{body['metadata']['name']}"} | body["metadata"]
    body = body | {"metadata": metadata}
    children = _children(_plan(kind, body, config))
    if children[-1]["kind"] != TRAINING_RUNTIME.kind:
        return children
    return children + _children(_plan(kind, body, config, runtime_digest=digest_of(children[-1])))


def _plan(kind: Kind, body: dict[str, Any], config: OperatorConfig, **seen_too: Any) -> Plan:
    if kind is MODEL_SERVE:
        # Its pods' policies come with the first plan, too.
        claims = _claims(body)
        seen = ServeObserved(source=_trained(body), claims=claims, quantization=Observed(claims=claims))
        return plan_model_serve(ModelServe.parse(body), seen, config, NOW)
    sources = {reference: _trained(body) for reference in _references(body)}
    observed = Observed(
        claims=_claims(body),
        config_maps=_config_maps(body),
        source=next(iter(sources.values()), None),
        sources=sources,
        **seen_too,
    )
    return plan_training_job(TrainingJob.parse(kind, body), observed, config, NOW)


def _children(made: Plan) -> list[dict[str, Any]]:
    assert made.children, made.decisions
    return [child.body for child in made.children]


def _of_run(body: dict[str, Any], config: OperatorConfig) -> Iterator[dict[str, Any]]:
    cluster = MemoryCluster(config)
    for claim in sorted(_claims(body) - {_WORKSPACE, "data"}):
        cluster.put(CLAIM, claim)
    for name, keys in _config_maps(body).items():
        cluster.api._create(CONFIG_MAP, {"metadata": {"name": name}, "data": dict.fromkeys(sorted(keys), "")})
    stages = [(FINE_TUNE_JOB.kind, body["spec"]["sft"])]
    stages += [(REWARD_MODEL.kind, one) for one in body["spec"].get("rewardModels", [])]
    named = {(word, stage["ref"]["name"]) for word, stage in stages if "ref" in stage}
    for word, name in sorted(_references(body) | named):
        kind = next(kind for kind in PARENT_KINDS if kind.kind == word)
        cluster.put(kind, name, spec={})
        cluster.train(name, kind=kind)
    run = body["metadata"]["name"]
    known = set(cluster.api.objects)
    cluster.put(ALIGNMENT_RUN, run, spec=body["spec"])
    for _ in range(4):
        cluster.settle(run)
        made = [item for item in cluster.api.objects if item not in known and item[0] != ALIGNMENT_RUN.kind]
        known |= set(made)
        for word, name in made:
            child = {name: value for name, value in cluster.api.objects[word, name].items() if name != "status"}
            yield _as_sent(child)
            parent = next((kind for kind in PARENT_KINDS if kind.kind == word), None)
            if parent is not None:
                yield from _children(_plan(parent, child, config))
                cluster.train(name, kind=parent)


def _as_sent(body: dict[str, Any]) -> dict[str, Any]:
    """An object without what the API server adds."""
    added = ("uid", "generation", "resourceVersion", "creationTimestamp")
    metadata = {name: value for name, value in body["metadata"].items() if name not in added}
    return body | {"metadata": metadata}


def _trained(body: dict[str, Any]) -> SourceView:
    """What a resource refers to: a model of 7 billion on GPUs, a very small one on CPUs."""
    on_gpus = re.search(r'"gpusPerWorker": [1-9]', json.dumps(body)) is not None
    parameters = 6_738_415_616 if on_gpus else 1_000_000
    model = ModelInfo(
        uri=f"pvc://{_WORKSPACE}/assistant/model",
        digest="sha256:0123",
        parameters=parameters,
        trainable_parameters=parameters,
    )
    return SourceView(exists=True, succeeded=True, model=model)


def _references(value: Any) -> set[tuple[str, str]]:
    """Kind and name of every `from` in a resource."""
    if isinstance(value, list):
        return {found for item in value for found in _references(item)}
    if not isinstance(value, dict):
        return set()
    source = value.get("from")
    own = {(source["kind"], source["name"])} if isinstance(source, dict) else set()
    return own | {found for item in value.values() for found in _references(item)}


def _claims(body: dict[str, Any]) -> frozenset[str]:
    return frozenset({_WORKSPACE, *re.findall(r"pvc://([^/\"]+)", json.dumps(body))})


def _config_maps(body: dict[str, Any]) -> dict[str, frozenset[str]]:
    keys: dict[str, set[str]] = {}
    for name, key in re.findall(r"configmap://([^/\"]+)/([^\"]+)", json.dumps(body)):
        keys.setdefault(name, set()).add(key)
    return {name: frozenset(found) for name, found in keys.items()}


def main() -> None:
    """Writes the golden files, and takes away those of examples that are no longer there."""
    files = golden_files()
    for path in FOLDER.glob("*.yaml"):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
