"""What the operator's account may do is what the operator's code does: no rule less, no rule more.

The code is read, not a list: which kinds it watches, and which it makes, changes and deletes. Where it does so through
a variable, INDIRECT says what that may be; an expression that is not there fails the test.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import kopf
import pytest

import alidade_operator
from alidade_operator import api, kopf_glue
from alidade_operator.api import (
    DEPLOYMENT,
    EVALUATION,
    EVENT,
    FINE_TUNE_JOB,
    JOB,
    LEASE,
    PARENT_KINDS,
    POLICY_KINDS,
    PYTORCH_JOB,
    REWARD_MODEL,
    SECRET,
    SERVICE,
    TRAIN_JOB,
    WEBHOOK_CONFIGURATION,
    WORKLOADS,
    Kind,
)
from alidade_operator.config import OperatorConfig
from alidade_operator.leader import LEASE_NAME
from alidade_operator.reconcile.craft import workloads_of
from alidade_operator.resources.labels import owner_reference
from alidade_operator.resync import WATCHED_KINDS
from tests.charts.rendering import NAMESPACE, Json, of_kind, render, the

PACKAGE = Path(alidade_operator.__file__).parent
Verbs = dict[tuple[str, str], set[str]]

STAGES = (FINE_TUNE_JOB, REWARD_MODEL)
SERVED = (DEPLOYMENT, SERVICE, *POLICY_KINDS)
WORKLOADS_OF_JOBS = (PYTORCH_JOB, TRAIN_JOB, JOB)
INDIRECT: dict[tuple[str, str], tuple[Kind, ...]] = {
    ("reconcile/stages.py", "made.kind"): STAGES,
    ("reconcile/stages.py", "new.kind"): STAGES,
    ("reconcile/alignmentrun.py", "kinds[view.kind]"): STAGES,
    ("reconcile/launch.py", "workload"): WORKLOADS_OF_JOBS,
    ("reconcile/launch.py", "item.kind"): WORKLOADS_OF_JOBS,
    ("reconcile/trainingjob.py", "item.kind"): WORKLOADS_OF_JOBS,
    ("reconcile/alignmentrun.py", "item.kind"): (PYTORCH_JOB, TRAIN_JOB),
    ("reconcile/trainingjob.py", "job.kind"): (FINE_TUNE_JOB, REWARD_MODEL, EVALUATION),
    ("reconcile/servingfront.py", "kind"): SERVED,
    ("reconcile/servedraft.py", "kind"): SERVED,
}
# Kinds that are asked for through a variable, by the file and the call.
ASKED: dict[tuple[str, str], tuple[Kind, ...]] = {("observe.py", "list"): WORKLOADS}
# What is allowed by a role of its own, by name.
BY_NAME = (LEASE, SECRET, WEBHOOK_CONFIGURATION)
# What a plan's words come to in calls: an apply makes what is not there, and what is already there is looked at.
WORDS = {"Create": {"create", "get"}, "Apply": {"create", "patch"}, "Adjust": {"patch"}, "Delete": {"delete"}}
CALLS = {"get": {"get"}, "create": {"create"}, "replace": {"update"}, "list": {"list"}, "merge": {"patch"}}


def test_what_variables_may_be_is_what_the_code_says() -> None:
    assert {one for kind in PARENT_KINDS for one in workloads_of(kind)} == set(WORKLOADS_OF_JOBS)


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def kinds_of(node: ast.expr, file: str) -> tuple[Kind, ...]:
    """The kinds that an expression may be."""
    if isinstance(node, ast.IfExp):
        return (*kinds_of(node.body, file), *kinds_of(node.orelse, file))
    if isinstance(node, ast.Name) and isinstance(getattr(api, node.id, None), Kind):
        kind: Kind = getattr(api, node.id)
        return (kind,)
    text = ast.unparse(node)
    assert (file, text) in INDIRECT, f"{file}: say in INDIRECT which kinds `{text}` may be"
    return INDIRECT[file, text]


def verbs_of_the_code() -> Verbs:
    """(group, resource) and what is done with it."""
    verbs: Verbs = defaultdict(set)
    for kind in WATCHED_KINDS:
        verbs[kind.group, kind.plural] |= {"list", "watch"}
    for kind in PARENT_KINDS:
        verbs[kind.group, f"{kind.plural}/status"] |= {"patch"}
        if owner_reference(kind.kind, "a", "u")["blockOwnerDeletion"]:
            verbs[kind.group, f"{kind.plural}/finalizers"] |= {"update"}
    for kind in SERVED:  # looked at by their names, lest another one's be taken over
        verbs[kind.group, kind.plural] |= {"get"}
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        for call in calls(path):
            if isinstance(call.func, ast.Name) and call.func.id in WORDS:
                for kind in kinds_of(call.args[0], file):
                    verbs[kind.group, kind.plural] |= WORDS[call.func.id]
            elif isinstance(call.func, ast.Attribute) and call.func.attr in CALLS and call.args:
                constant = getattr(api, call.args[0].id, None) if isinstance(call.args[0], ast.Name) else None
                asked = (constant,) if isinstance(constant, Kind) else ASKED.get((file, call.func.attr), ())
                for kind in asked:
                    verbs[kind.group, kind.plural] |= CALLS[call.func.attr]
    return dict(verbs)


def verbs_of_rules(rules: list[Json]) -> Verbs:
    verbs: Verbs = defaultdict(set)
    for rule in rules:
        assert set(rule) <= {"apiGroups", "resources", "verbs", "resourceNames"}
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert not verbs[group, resource] & set(rule["verbs"]), f"{resource} is allowed the same twice"
                verbs[group, resource] |= set(rule["verbs"])
    return dict(verbs)


def without_named(verbs: Verbs) -> Verbs:
    named = {(kind.group, kind.plural) for kind in BY_NAME}
    return {place: allowed for place, allowed in verbs.items() if place not in named}


def test_the_cluster_role_is_what_the_code_does() -> None:
    allowed = verbs_of_rules(the(render({}), "ClusterRole", "alidade-operator")["rules"])
    # kopf watches the resource types, so that a kind that is installed later is noticed.
    settings = kopf.OperatorSettings()
    kopf_glue.configure(settings, OperatorConfig())
    assert not settings.scanning.disabled
    assert allowed.pop(("apiextensions.k8s.io", "customresourcedefinitions")) == {"list", "watch"}
    assert allowed == without_named(verbs_of_the_code())


def test_in_namespaced_mode_nothing_is_allowed_beyond_the_namespaces() -> None:
    objects = render({"watchNamespaces": ["team-a", "team-b"], "rbac": {"userRoles": False}})
    assert of_kind(objects, "ClusterRole", "ClusterRoleBinding") == []
    for namespace in ("team-a", "team-b"):
        (role,) = [one for one in of_kind(objects, "Role") if one["metadata"]["namespace"] == namespace]
        assert verbs_of_rules(role["rules"]) == without_named(verbs_of_the_code())
    settings = kopf.OperatorSettings()
    kopf_glue.configure(settings, OperatorConfig(namespaces=["team-a"]))
    assert settings.scanning.disabled, "resource types are cluster-scoped, and are not watched then"


def test_the_lease_is_the_only_one_of_its_namespace_that_may_be_written() -> None:
    role = the(render({}), "Role", "alidade-operator-leader")
    assert role["metadata"]["namespace"] == NAMESPACE
    assert verbs_of_rules(role["rules"]) == {
        (LEASE.group, LEASE.plural): verbs_of_the_code()[LEASE.group, LEASE.plural]
    }
    named = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert [rule["resourceNames"] for rule in named] == [[LEASE_NAME]]
    assert {verb for rule in role["rules"] if "resourceNames" not in rule for verb in rule["verbs"]} == {"create"}


def test_the_webhook_may_write_its_own_certificate_and_its_own_configuration() -> None:
    code = verbs_of_the_code()
    objects = render({"webhook": {"enabled": True}})
    for kind, place, name in (
        (SECRET, "Role", "alidade-webhook-certificate"),
        (WEBHOOK_CONFIGURATION, "ClusterRole", "alidade"),
    ):
        role = the(objects, place, "alidade-webhook")
        # The chart makes the Secret: the right to make some could not be bound to a name.
        assert verbs_of_rules(role["rules"]) == {(kind.group, kind.plural): code[kind.group, kind.plural] - {"create"}}
        assert [rule["resourceNames"] for rule in role["rules"]] == [[name]]
        assert the(objects, kind.kind, name)


@pytest.mark.parametrize("values", [{}, {"webhook": {"certManager": {"enabled": True}, "enabled": True}}])
def test_without_a_certificate_of_its_own_there_is_no_right_to_one(values: Json) -> None:
    objects = render(values)
    assert not [one for one in of_kind(objects, "Role", "ClusterRole") if one["metadata"]["name"] == "alidade-webhook"]
    assert not of_kind(objects, "Secret")


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["team-a"]}, {"webhook": {"enabled": True}}])
def test_every_role_is_bound_to_the_operators_account_alone(values: Json) -> None:
    objects = render(values)
    bound = set()
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        (subject,) = binding["subjects"]
        account = {"kind": "ServiceAccount", "name": "alidade-operator", "namespace": NAMESPACE}
        assert subject == account
        bound.add((binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace")))
    roles = {
        (one["kind"], one["metadata"]["name"], one["metadata"].get("namespace"))
        for one in of_kind(objects, "Role", "ClusterRole")
        if "aggregate" not in str(one["metadata"]["labels"])
    }
    assert bound == roles


def test_secrets_and_users_roles_are_out_of_reach() -> None:
    allowed = verbs_of_rules(the(render({}), "ClusterRole", "alidade-operator")["rules"])
    assert not {resource for _, resource in allowed} & {"secrets", "roles", "clusterroles", "pods/exec", "nodes"}


def test_users_get_the_resources_with_the_clusters_own_roles() -> None:
    objects = render({})
    plurals = {kind.plural for kind in PARENT_KINDS}
    for name, verb in (("alidade-view", "list"), ("alidade-edit", "create")):
        role = the(objects, "ClusterRole", name)
        assert {key.rpartition("-")[2] for key in role["metadata"]["labels"] if "aggregate-to" in key} <= {
            "view",
            "edit",
            "admin",
        }
        allowed = verbs_of_rules(role["rules"])
        assert {resource for _, resource in allowed} == plurals | {"modelserves/scale"}
        assert all(verb in allowed["alidade.dev", plural] for plural in plurals)
        assert not any(resource.endswith("/status") for _, resource in allowed), "the operator alone writes these"


def test_events_are_only_posted() -> None:
    assert verbs_of_the_code()[EVENT.group, EVENT.plural] == {"create"}
