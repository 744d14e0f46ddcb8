"""What happens by itself: garbage collection, the end of namespaces, restarts."""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from alidade_local.apiserver.journal import Revision
from alidade_local.apiserver.options import DeleteOptions
from alidade_local.apiserver.rest import Target
from alidade_local.apiserver.server import start_api_server
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.pki import Certificates
from bench.local_cluster import Server, kill_often
from tests.local.apiserver.conftest import (
    CONFIG_MAPS,
    DEFINITIONS,
    PODS,
    WIDGETS,
    Api,
    Refused,
    config_map,
    definition,
    pod,
    session_for,
    widget,
)

Json = dict[str, Any]


def owned(name: str, *owners: Json, block: bool = True) -> Json:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    return {**config_map(name), "metadata": {"name": name, "ownerReferences": references}}


async def test_dependents_follow_their_last_owner(api: Api) -> None:
    one, two = await api.post(CONFIG_MAPS, config_map("one")), await api.post(CONFIG_MAPS, config_map("two"))
    await api.post(CONFIG_MAPS, owned("child", one, two))
    grandchild = owned("grandchild", await api.get(f"{CONFIG_MAPS}/child"))
    await api.post(CONFIG_MAPS, grandchild)
    await api.delete(f"{CONFIG_MAPS}/one")

    async def left_one() -> bool:
        references = (await api.get(f"{CONFIG_MAPS}/child"))["metadata"]["ownerReferences"]
        return [item["name"] for item in references] == ["two"]

    await api.until(left_one)
    await api.delete(f"{CONFIG_MAPS}/two", {"propagationPolicy": "Background"})
    await api.until(lambda: api.gone(f"{CONFIG_MAPS}/grandchild"))
    assert await api.gone(f"{CONFIG_MAPS}/child")


async def test_a_dependent_of_nobody_is_collected(api: Api) -> None:
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "no-such-uid"}}
    await api.post(CONFIG_MAPS, owned("child", ghost))
    await api.until(lambda: api.gone(f"{CONFIG_MAPS}/child"))


async def test_foreground_deletion_waits_for_blocking_dependents(api: Api) -> None:
    owner = await api.post(CONFIG_MAPS, config_map("owner"))
    child = owned("child", owner)
    child["metadata"]["finalizers"] = ["test.dev/hold"]
    await api.post(CONFIG_MAPS, child)
    marked = await api.delete(f"{CONFIG_MAPS}/owner", {"propagationPolicy": "Foreground"})
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def child_is_ending() -> bool:
        return "deletionTimestamp" in (await api.get(f"{CONFIG_MAPS}/child"))["metadata"]

    await api.until(child_is_ending)
    assert not await api.gone(f"{CONFIG_MAPS}/owner")
    await api.merge(f"{CONFIG_MAPS}/child", {"metadata": {"finalizers": None}})
    await api.until(lambda: api.gone(f"{CONFIG_MAPS}/owner"))


async def test_orphans_stay_without_their_owner(api: Api) -> None:
    owner = await api.post(CONFIG_MAPS, config_map("owner"))
    await api.post(CONFIG_MAPS, owned("child", owner))
    await api.delete(f"{CONFIG_MAPS}/owner?propagationPolicy=Orphan")
    await api.until(lambda: api.gone(f"{CONFIG_MAPS}/owner"))
    assert "ownerReferences" not in (await api.get(f"{CONFIG_MAPS}/child"))["metadata"]


async def test_a_job_leaves_its_pods_unless_told_otherwise(api: Api) -> None:
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    for policy, stays in ((None, True), ("Background", False)):
        owner = await api.post(jobs, job)
        made = await api.post(PODS, {**pod("p"), "metadata": owned("p", owner)["metadata"]})
        await api.delete(f"{jobs}/j", None if policy is None else {"propagationPolicy": policy})
        await api.until(lambda: api.gone(f"{jobs}/j"))
        if stays:
            assert (await api.get(f"{PODS}/p"))["metadata"]["uid"] == made["metadata"]["uid"]
            await api.delete(f"{PODS}/p")
        else:
            await api.until(lambda: api.gone(f"{PODS}/p"))


async def test_a_namespace_ends_with_everything_in_it(api: Api) -> None:
    await api.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})

    async def furnished() -> bool:
        return not await api.gone("/api/v1/namespaces/n/serviceaccounts/default")

    await api.until(furnished)
    held = config_map("held")
    held["metadata"]["finalizers"] = ["test.dev/hold"]
    await api.post("/api/v1/namespaces/n/configmaps", held)
    await api.post("/api/v1/namespaces/n/configmaps", config_map("free"))
    ending = await api.delete("/api/v1/namespaces/n")
    assert ending["status"]["phase"] == "Terminating"
    await api.until(lambda: api.gone("/api/v1/namespaces/n/configmaps/free"))
    with pytest.raises(Refused) as refused:
        await api.post("/api/v1/namespaces/n/configmaps", config_map("late"))
    assert refused.value.code == 403
    assert refused.value.status["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await api.merge("/api/v1/namespaces/n/configmaps/held", {"metadata": {"finalizers": None}})
    await api.until(lambda: api.gone("/api/v1/namespaces/n"))


async def test_a_restart_keeps_objects_definitions_versions_and_history(
    settings: Callable[..., ApiServerSettings], certificates: Certificates
) -> None:
    server = await start_api_server(settings())
    async with session_for(certificates) as session:
        api = Api(server, session)
        await api.post(DEFINITIONS, definition({"type": "object", "properties": {"n": {"type": "integer"}}}))
        kept = await api.post(WIDGETS, widget("kept", n=1))
        await api.post(CONFIG_MAPS, config_map("gone"))
        await api.delete(f"{CONFIG_MAPS}/gone")
        before = server.store.rv
    await server.stop()
    server = await start_api_server(settings())
    async with session_for(certificates) as session:
        api = Api(server, session)
        assert await api.get(f"{WIDGETS}/kept") == kept
        assert await api.gone(f"{CONFIG_MAPS}/gone")
        assert server.store.rv >= before
        later = await api.post(CONFIG_MAPS, config_map("later"))
        assert int(later["metadata"]["resourceVersion"]) > before
        query = f"?watch=1&resourceVersion={kept['metadata']['resourceVersion']}&timeoutSeconds=1"
        async with session.get(f"{server.url}{CONFIG_MAPS}{query}") as answer:
            events = [orjson.loads(line) for line in (await answer.read()).splitlines()]
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
            ("ADDED", "gone"),
            ("DELETED", "gone"),
            ("ADDED", "later"),
        ]
    await server.stop()


def started(data_dir: Path) -> "subprocess.Popen[str]":
    """A server process that answers requests."""
    command = [sys.executable, "-m", "alidade_local.apiserver", "--data-dir", str(data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert "serving" in process.stdout.readline()
    return process


async def test_kill_9_in_the_middle_of_writes_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        result = await kill_often(server, 4)
    finally:
        server.end(signal.SIGKILL)
    assert result["lost"] == 0
    assert result["acknowledged"] >= 4


def test_two_servers_do_not_share_their_objects(tmp_path: Path) -> None:
    process = started(tmp_path)
    second = subprocess.run(
        [sys.executable, "-m", "alidade_local.apiserver", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == f"{tmp_path}/state.db is in use by another server; stop that one first"
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert process.stdout is not None
    process.stdout.close()


async def test_a_failed_commit_is_told_and_undone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.post(CONFIG_MAPS, config_map("a", x="1"))
    journal = api.server.store._journal

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", full)
        with pytest.raises(Refused, match="the object database cannot be written: no space left on device"):
            await api.merge(f"{CONFIG_MAPS}/a", {"data": {"x": "2"}})
        with pytest.raises(Refused):
            await api.post(CONFIG_MAPS, config_map("b"))
    assert (await api.get(f"{CONFIG_MAPS}/a"))["data"] == {"x": "1"}
    assert await api.gone(f"{CONFIG_MAPS}/b")
    assert (await api.merge(f"{CONFIG_MAPS}/a", {"data": {"x": "3"}}))["data"] == {"x": "3"}


async def test_a_collection_whose_commit_fails_is_tried_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await api.post(CONFIG_MAPS, config_map("owner"))
    await api.post(CONFIG_MAPS, owned("child", owner))
    append, failures = api.server.store._journal.append, 0

    def append_but_no_end_of_the_child(rows: Sequence[Revision], *more: Any) -> None:
        nonlocal failures
        if failures < 2 and any(row.name == "child" and row.deleted for row in rows):
            failures += 1
            raise OSError("no space left on device")
        append(rows, *more)

    monkeypatch.setattr(api.server.store._journal, "append", append_but_no_end_of_the_child)
    await api.delete(f"{CONFIG_MAPS}/owner")
    await api.until(lambda: api.gone(f"{CONFIG_MAPS}/child"))
    assert failures == 2


async def test_a_collection_that_breaks_is_tried_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await api.post(CONFIG_MAPS, config_map("owner"))
    await api.post(CONFIG_MAPS, owned("child", owner))
    delete, failures = api.server.objects.delete, 0

    def delete_the_child_at_the_third_try(target: Target, options: DeleteOptions) -> Any:
        nonlocal failures
        if failures < 2 and target.name == "child":
            failures += 1
            raise RuntimeError("a mistake in a rule of the kind")
        return delete(target, options)

    monkeypatch.setattr(api.server.objects, "delete", delete_the_child_at_the_third_try)
    await api.delete(f"{CONFIG_MAPS}/owner")
    await api.until(lambda: api.gone(f"{CONFIG_MAPS}/child"))
    assert failures == 2
