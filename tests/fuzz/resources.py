"""Resources as nobody would write them, from the schemas of the kinds and the manifests of the examples."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal, get_args

import yaml

from alidade_crds.crd import KINDS, crd_manifest
from tests.fuzz.generating import Generator, Json

ROOT = Path(__file__).resolve().parents[2]
Sort = Literal["valid", "nearly", "hostile"]
SORTS: tuple[Sort, ...] = get_args(Sort)
_SCHEMAS: dict[str, Json] = {
    kind.kind: crd_manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for kind in KINDS
}
_NAMES = ("x" * 63, "x" * 254, "UPPER", "a.b", "-a", "a/b", "..", "", "ä", "a\n", 7, None)


@cache
def _examples() -> list[Json]:
    """The resources of the examples: what the valid ones are varied from."""
    files = sorted((ROOT / "examples").rglob("*.yaml"))
    bodies = [body for file in files for body in yaml.safe_load_all(file.read_text()) if body]
    return [body for body in bodies if body.get("kind") in _SCHEMAS and "spec" in body]


def resource(random: Random, number: int) -> tuple[Sort, Json]:
    """A resource, and how it was made.

    valid: an example with a few fields more or other values, which the schema allows, rules among fields perhaps not.
    nearly: the same with one or two places damaged. hostile: drawn from the schema alone, or damaged all over.
    """
    sort = SORTS[number % len(SORTS)]
    generator = Generator(random)
    body = copy.deepcopy(random.choice(_examples()))
    schema = _SCHEMAS[body["kind"]]
    body["metadata"] = {"name": f"fuzz-{number}"}
    if sort == "hostile" and random.random() < 0.5:
        body["spec"] = generator.value(schema)
    for _ in range(random.randrange(3)):
        generator.vary(body, "spec", schema)
    for _ in range({"valid": 0, "nearly": random.randint(1, 2), "hostile": random.randint(0, 8)}[sort]):
        generator.damage(body, "spec", schema)
    if sort == "hostile" and random.random() < 0.5:
        _mark(body, generator)
    return sort, body


def _mark(body: Json, generator: Generator) -> None:
    """Damages what is not the spec."""
    random = generator.random
    way = random.randrange(4)
    if way == 0:
        body["metadata"]["name"] = random.choice(_NAMES)
    elif way == 1:
        body["metadata"][random.choice(("labels", "annotations"))] = {"a": generator.anything()}
    elif way == 2:
        body["metadata"][random.choice(("ownerReferences", "finalizers", "generation", "uid"))] = generator.anything()
    else:
        body["status"] = generator.anything()


def named_by_examples(pattern: str) -> set[tuple[str, ...]]:
    """What a pattern's groups find in the examples' text, so that what they name can be made."""
    return set(re.findall(pattern, json.dumps(_examples())))
