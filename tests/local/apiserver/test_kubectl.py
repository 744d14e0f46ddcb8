"""kubectl, unchanged, against the server: what people type."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
_BUNDLED = ROOT / ".tools" / "bin" / "kubectl"
KUBECTL = str(_BUNDLED) if _BUNDLED.exists() else shutil.which("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed; make .tools/bin/kubectl")

Kubectl = Callable[..., str]

FINE_TUNE_JOB = """
apiVersion: alidade.dev/v1alpha1
kind: FineTuneJob
metadata: {name: tune}
spec:
  method: sft
  model: {uri: "hf://org/model"}
  dataset: {uri: "pvc://data/train.json"}
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1"}]}
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Runs kubectl in a namespace of its own on a server of the module's."""
    data_dir = tmp_path_factory.mktemp("server")
    process = subprocess.Popen(
        [sys.executable, "-m", "alidade_local.apiserver", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "serving" in process.stdout.readline()
    environment = {
        **os.environ,
        "KUBECONFIG": str(data_dir / "kubeconfig"),
        "HOME": str(data_dir),
        "EDITOR": "sed -i s/web:1/web:2/",
    }

    def run(*arguments: str, stdin: str = "", fails: bool = False) -> str:
        done = subprocess.run(
            [str(KUBECTL), *arguments], input=stdin, capture_output=True, text=True, env=environment, timeout=120
        )
        assert (done.returncode != 0) is fails, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    run("apply", "-f", str(ROOT / "crds" / "finetunejobs.alidade.dev.yaml"))
    run("wait", "--for=condition=Established", "--timeout=60s", "crd/finetunejobs.alidade.dev")
    yield run
    process.terminate()
    process.wait(timeout=60)
    process.stdout.close()


def test_apply_creates_configures_and_leaves_alone(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", stdin=FINE_TUNE_JOB) == "finetunejob.alidade.dev/tune created\n"
    assert kubectl("apply", "-f", "-", stdin=FINE_TUNE_JOB) == "finetunejob.alidade.dev/tune unchanged\n"
    changed = FINE_TUNE_JOB + "  backoffLimit: 7\n"
    assert kubectl("diff", "-f", "-", stdin=FINE_TUNE_JOB) == ""
    assert kubectl("apply", "-f", "-", stdin=changed) == "finetunejob.alidade.dev/tune configured\n"
    assert kubectl("get", "ftj", "tune", "-o", "jsonpath={.spec.backoffLimit}") == "7"
    assert kubectl("delete", "ftj", "tune").startswith('finetunejob.alidade.dev "tune" deleted')


def test_a_list_is_applied_and_its_mistakes_are_named(kubectl: Kubectl) -> None:
    """kubectl checks what is in a List by the OpenAPI document of version 2, if that says anything about it."""
    own = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "c"}}
    items: list[dict[str, object]] = [own | {"metadata": {"name": name}} for name in ("one", "two")]
    body = {"apiVersion": "v1", "kind": "List", "items": items}
    said = kubectl("apply", "-f", "-", stdin=json.dumps(body))
    assert said == "configmap/one created\nconfigmap/two created\n"
    assert kubectl("apply", "-f", "-", stdin=json.dumps(body)) == "configmap/one unchanged\nconfigmap/two unchanged\n"
    items[1]["data"] = {"a": 1}
    said = kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body), fails=True)
    assert "Go struct field ConfigMap.data.a of type string" in said


def test_a_mistake_is_named_with_its_field(kubectl: Kubectl) -> None:
    said = kubectl("apply", "-f", "-", stdin=FINE_TUNE_JOB.replace("sft", "sfx"), fails=True)
    assert 'The FineTuneJob "tune" is invalid:' in said
    assert 'spec.method: Unsupported value: "sfx": supported values: "pretrain", "sft"' in said
    said = kubectl("apply", "-f", "-", stdin=FINE_TUNE_JOB + "  metod: sft\n", fails=True)
    assert 'strict decoding error: unknown field "spec.metod"' in said
    said = kubectl("create", "-f", "-", stdin=FINE_TUNE_JOB.replace("hf://", "ftp://"), fails=True)
    assert "spec.model: Invalid value" in said


def test_explain_shows_types_and_descriptions(kubectl: Kubectl) -> None:
    shown = kubectl("explain", "finetunejob.spec.training.learningRate")
    assert "FIELD: learningRate <number>" in shown
    assert "KIND:       Pod" in kubectl("explain", "pod.spec.containers")
    assert "containerPort\t<integer> -required-" in kubectl("explain", "pod.spec.containers.ports")


def test_get_shows_columns_in_every_form(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    assert kubectl("get", "deploy", "web").splitlines()[0].split() == [
        "NAME",
        "READY",
        "UP-TO-DATE",
        "AVAILABLE",
        "AGE",
    ]
    assert "CONTAINERS" in kubectl("get", "deploy", "-o", "wide")
    assert kubectl("get", "deploy", "-o", "name") == "deployment.apps/web\n"
    assert "deployment.apps/web" in kubectl("get", "all", "-A")
    assert "kind: Deployment" in kubectl("get", "deploy", "web", "-o", "yaml")
    assert "Replicas:" in kubectl("describe", "deploy", "web")
    kubectl("delete", "deploy", "web")


def test_edit_patch_label_scale_and_set_change_an_object(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=DEPLOYMENT)
    kubectl("edit", "deploy", "web")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={..image}") == "web:2"
    kubectl("set", "image", "deploy/web", "web=web:3")
    kubectl("scale", "deploy", "web", "--replicas=4", "--current-replicas=1")
    kubectl("label", "deploy", "web", "tier=front")
    kubectl("annotate", "deploy", "web", "note=x")
    kubectl("patch", "deploy", "web", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"web","tty":true}]}}}}')
    path = "jsonpath={..image} {.items[0].spec.replicas} {.items[0].metadata.labels.tier} {..tty}"
    assert kubectl("get", "deploy", "-l", "tier in (front)", "-o", path) == "web:3 4 front true"
    assert "restarted" in kubectl("rollout", "restart", "deploy/web")
    kubectl("delete", "deploy", "web", "--cascade=foreground")


def test_server_side_apply_names_conflicts(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=DEPLOYMENT)
    other = DEPLOYMENT.replace("web:1", "web:9")
    said = kubectl("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=other, fails=True)
    assert 'conflict with "one": .spec.template.spec.containers[name="web"].image' in said
    kubectl("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=other)
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("delete", "deploy", "web")


@pytest.mark.parametrize(
    "command",
    [
        ("configmap", "made", "--from-literal=a=b"),
        ("secret", "generic", "made", "--from-literal=a=b"),
        ("namespace", "made"),
        ("serviceaccount", "made"),
        ("job", "made", "--image=busybox", "--", "sleep", "1"),
        ("deployment", "made", "--image=nginx", "--port=80", "--replicas=0"),
        ("service", "clusterip", "made", "--tcp=80:8080"),
        ("role", "made", "--verb=get,list", "--resource=pods"),
        ("rolebinding", "made", "--role=made", "--user=somebody"),
        ("clusterrole", "made", "--verb=get", "--non-resource-url=/metrics"),
        ("clusterrolebinding", "made", "--clusterrole=made", "--serviceaccount=default:made"),
        ("quota", "made", "--hard=cpu=1,memory=1Gi"),
        ("poddisruptionbudget", "made", "--selector=app=web", "--min-available=50%"),
        ("priorityclass", "made", "--value=10", "--description=high"),
    ],
    ids=lambda command: command[0],
)
def test_create_makes_the_object_that_its_dry_run_prints(kubectl: Kubectl, command: tuple[str, ...]) -> None:
    """kubectl sends these in protobuf; its own client-side dry run says what should arrive."""
    flags_end = command.index("--") if "--" in command else len(command)
    dry = (*command[:flags_end], "--dry-run=client", "-o", "yaml", *command[flags_end:])
    expected = yaml.safe_load(kubectl("create", *dry))
    kubectl("create", *command)
    group, slash, _ = expected["apiVersion"].partition("/")
    kind = f"{expected['kind']}.{group}" if slash else expected["kind"]
    stored = yaml.safe_load(kubectl("get", kind, "made", "-o", "yaml"))
    expected.pop("status", None)
    assert_contains(stored, expected)
    kubectl("delete", kind, "made", "--wait=false")


def assert_contains(value: object, part: object, path: str = "") -> None:
    """Every field of the part is in the value."""
    if isinstance(part, dict):
        assert isinstance(value, dict), path
        for name, item in part.items():
            if item not in (None, {}):
                assert name in value, f"{path}.{name}"
                assert_contains(value[name], item, f"{path}.{name}")
    elif isinstance(part, list):
        assert isinstance(value, list), path
        assert len(value) == len(part), path
        for index, item in enumerate(part):
            assert_contains(value[index], item, f"{path}[{index}]")
    else:
        assert value == part, path


def test_auth_commands_know_the_administrator(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert "system:masters" in kubectl("auth", "whoami")
    assert "[*]" in kubectl("auth", "can-i", "--list")


def test_wait_sees_conditions_and_deletions(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=FINE_TUNE_JOB)
    condition = {"type": "Succeeded", "status": "True", "reason": "Done", "message": "m"}
    # kubectl passes over what was said of an older generation.
    status = {"observedGeneration": 1, "conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    patch = json.dumps({"status": status})
    kubectl("patch", "ftj", "tune", "--subresource=status", "--type=merge", "-p", patch)
    assert "condition met" in kubectl("wait", "ftj/tune", "--for=condition=Succeeded", "--timeout=60s")
    kubectl("delete", "ftj", "tune", "--wait=false")
    kubectl("wait", "ftj/tune", "--for=delete", "--timeout=60s")


def test_run_and_delete_a_pod(kubectl: Kubectl) -> None:
    kubectl("run", "p", "--image=busybox", "--restart=Never", "--", "sleep", "1")
    assert "Pending" in kubectl("get", "pod", "p")
    assert "is waiting to start" in kubectl("logs", "p", fails=True)
    assert kubectl("delete", "pod", "p").startswith('pod "p" deleted')


def test_what_is_not_there_is_said(kubectl: Kubectl) -> None:
    assert 'pods "nothing" not found' in kubectl("get", "pod", "nothing", fails=True)
    assert "the server doesn't have a resource type" in kubectl("get", "cronjobs", fails=True)
