"""Container logs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.local.apiserver.conftest import PODS, Api, Refused, pod

Json = dict[str, Any]


async def started(api: Api, *containers: str, restarts: int = 0) -> Path:
    """A pod `p` with running containers; returns the folder of its logs."""
    specs = [{"name": name, "image": "i"} for name in containers]
    made = await api.post(PODS, pod("p", containers=specs))
    await report(api, *containers, state={"running": {}}, restarts=restarts)
    folder: Path = api.server.settings.pod_logs / made["metadata"]["uid"]
    for name in containers:
        (folder / name).mkdir(parents=True)
    return folder


async def report(api: Api, *containers: str, state: Json, restarts: int = 0, phase: str = "Running") -> None:
    statuses = [{"name": name, "state": state, "restartCount": restarts, "ready": True} for name in containers]
    await api.merge(f"{PODS}/p/status", {"status": {"phase": phase, "containerStatuses": statuses}})


async def log(api: Api, query: str = "") -> str:
    async with api.session.get(f"{api.server.url}{PODS}/p/log?{query}") as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/plain"
        return await answer.text()


async def test_a_log_is_what_the_container_wrote(api: Api) -> None:
    folder = await started(api, "main")
    (folder / "main" / "0.log").write_text("one\ntwo\nthree\n")
    assert await log(api) == "one\ntwo\nthree\n"
    assert await log(api, "tailLines=2") == "two\nthree\n"
    assert await log(api, "tailLines=9") == "one\ntwo\nthree\n"
    assert await log(api, "tailLines=0") == ""
    assert await log(api, "limitBytes=5") == "one\nt"


async def test_the_tail_of_a_long_log_is_found_from_its_end(api: Api) -> None:
    folder = await started(api, "main")
    lines = [f"{index:06} {'x' * 100}\n" for index in range(3000)]
    (folder / "main" / "0.log").write_text("".join(lines))
    assert await log(api, "tailLines=1500") == "".join(lines[-1500:])


async def test_the_last_line_counts_without_its_newline(api: Api) -> None:
    folder = await started(api, "main")
    (folder / "main" / "0.log").write_text("one\ntwo")
    assert await log(api, "tailLines=1") == "two"


async def test_following_ends_with_the_container(api: Api) -> None:
    folder = await started(api, "main")
    path = folder / "main" / "0.log"
    path.write_text("one\n")
    following = asyncio.create_task(log(api, "follow=true"))
    with path.open("a") as file:
        file.write("two\n")
    await report(api, "main", state={"terminated": {"exitCode": 0}})
    async with asyncio.timeout(60):
        assert await following == "one\ntwo\n"


async def test_the_log_before_the_restart_is_the_previous_one(api: Api) -> None:
    folder = await started(api, "main", restarts=1)
    (folder / "main" / "0.log").write_text("before\n")
    (folder / "main" / "1.log").write_text("after\n")
    assert await log(api) == "after\n"
    assert await log(api, "previous=true") == "before\n"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "a container name must be specified for pod p, choose one of: [main side]"),
        ("container=other", "container other is not valid for pod p"),
        ("container=main", 'container "main" in pod "p" is waiting to start: ContainerCreating'),
        ("container=main&previous=true", 'previous terminated container "main" in pod "p" not found'),
        ("container=main&tailLines=x", 'tailLines is "x"; it must be a whole number of 0 or more'),
    ],
)
async def test_what_cannot_be_shown_is_explained(api: Api, query: str, message: str) -> None:
    await started(api, "main", "side")
    with pytest.raises(Refused) as refused:
        await api.get(f"{PODS}/p/log?{query}")
    assert (refused.value.code, refused.value.message) == (400, message)
