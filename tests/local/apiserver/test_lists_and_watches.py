"""Lists and watches: selectors, pages, versions, and streams that miss nothing and repeat nothing."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from alidade_local.apiserver import storage
from alidade_local.apiserver.server import start_api_server
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.apiserver.storage import Store, Stored
from alidade_local.pki import Certificates
from tests.local.apiserver.conftest import (
    CONFIG_MAPS,
    PODS,
    Api,
    Refused,
    config_map,
    pod,
    session_for,
)

Json = dict[str, Any]


class Stream:
    """The events of one watch."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> Json:
        async with asyncio.timeout(60):
            line = await self.answer.content.readline()
        event: Json = orjson.loads(line)
        return event

    async def names(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    async def ended(self) -> bool:
        async with asyncio.timeout(60):
            return await self.answer.content.readline() == b""


@asynccontextmanager
async def watch(api: Api, path: str, **headers: str) -> AsyncIterator[Stream]:
    separator = "&" if "?" in path else "?"
    async with api.session.get(f"{api.server.url}{path}{separator}watch=true", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        yield Stream(answer)


async def names(api: Api, path: str) -> list[str]:
    return [item["metadata"]["name"] for item in (await api.get(path))["items"]]


def labelled(name: str, **labels: str) -> Json:
    return {**config_map(name), "metadata": {"name": name, "labels": labels}}


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("app=web", ["a", "b"]),
        ("app==web,tier!=back", ["a"]),
        ("app in (web, db)", ["a", "b", "c"]),
        ("app notin (web)", ["c", "d"]),
        ("tier", ["a", "b"]),
        ("!app", ["d"]),
        ("size>3", ["b"]),
        ("size<5", ["a"]),
        ("app=", []),
        ("", ["a", "b", "c", "d"]),
    ],
)
async def test_label_selectors(api: Api, selector: str, found: list[str]) -> None:
    await api.post(CONFIG_MAPS, labelled("a", app="web", tier="front", size="3"))
    await api.post(CONFIG_MAPS, labelled("b", app="web", tier="back", size="10"))
    await api.post(CONFIG_MAPS, labelled("c", app="db"))
    await api.post(CONFIG_MAPS, labelled("d"))
    query = selector.replace(" ", "%20").replace("!", "%21").replace(">", "%3E").replace("<", "%3C")
    assert await names(api, f"{CONFIG_MAPS}?labelSelector={query}") == found


@pytest.mark.parametrize("selector", ["a b", "a in (", "a in b", "=x", "a>x", "a,,b", "a in (x"])
async def test_a_bad_label_selector_is_a_400(api: Api, selector: str) -> None:
    with pytest.raises(Refused) as refused:
        await api.get(CONFIG_MAPS, params={"labelSelector": selector})
    assert refused.value.code == 400


async def test_field_selectors(api: Api) -> None:
    await api.post(PODS, pod("a"))
    await api.post(PODS, pod("b", nodeName="local"))
    await api.merge(f"{PODS}/b/status", {"status": {"phase": "Running"}})
    assert await names(api, f"{PODS}?fieldSelector=spec.nodeName=local") == ["b"]
    assert await names(api, f"{PODS}?fieldSelector=spec.nodeName=") == ["a"]
    assert await names(api, f"{PODS}?fieldSelector=status.phase!=Running") == ["a"]
    assert await names(api, f"{PODS}?fieldSelector=metadata.name=a,metadata.namespace=default") == ["a"]
    assert await names(api, "/api/v1/pods?fieldSelector=metadata.namespace!=default") == []
    with pytest.raises(Refused, match=r"field label not supported: spec\.color"):
        await api.get(f"{PODS}?fieldSelector=spec.color=red")


async def test_pages_of_a_list_are_all_of_one_moment(api: Api) -> None:
    for index in range(5):
        await api.post(CONFIG_MAPS, config_map(f"c{index}"))
    first = await api.get(f"{CONFIG_MAPS}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    await api.delete(f"{CONFIG_MAPS}/c3")
    await api.post(CONFIG_MAPS, config_map("c2a"))
    second = await api.get(f"{CONFIG_MAPS}?limit=2&continue={first['metadata']['continue']}")
    third = await api.get(f"{CONFIG_MAPS}?limit=2&continue={second['metadata']['continue']}")
    pages = [first, second, third]
    assert [item["metadata"]["name"] for page in pages for item in page["items"]] == ["c0", "c1", "c2", "c3", "c4"]
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
    assert "continue" not in third["metadata"]
    with pytest.raises(Refused) as refused:
        await api.get(f"{CONFIG_MAPS}?continue=nonsense")
    assert refused.value.code == 400


async def test_a_list_can_be_asked_for_at_a_version(api: Api) -> None:
    made = await api.post(CONFIG_MAPS, config_map("a"))
    version = int(made["metadata"]["resourceVersion"])
    await api.post(CONFIG_MAPS, config_map("b"))
    exact = await api.get(f"{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert [item["metadata"]["name"] for item in exact["items"]] == ["a"]
    assert exact["metadata"]["resourceVersion"] == str(version)
    assert await names(api, f"{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan") == ["a", "b"]
    with pytest.raises(Refused) as refused:
        await api.get(f"{CONFIG_MAPS}?resourceVersion=999999")
    assert (refused.value.code, refused.value.status["details"]["causes"][0]["reason"]) == (
        504,
        "ResourceVersionTooLarge",
    )
    with pytest.raises(Refused, match="resourceVersionMatch is forbidden unless resourceVersion is provided"):
        await api.get(f"{CONFIG_MAPS}?resourceVersionMatch=Exact")


async def test_a_watch_without_version_begins_with_what_is_there(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a"))
    async with watch(api, CONFIG_MAPS) as stream:
        assert await stream.names(1) == [("ADDED", "a")]
        await api.post(CONFIG_MAPS, config_map("b"))
        await api.merge(f"{CONFIG_MAPS}/a", {"data": {"x": "1"}})
        await api.delete(f"{CONFIG_MAPS}/a")
        assert await stream.names(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_resumes_after_a_version(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a"))
    version = (await api.get(CONFIG_MAPS))["metadata"]["resourceVersion"]
    await api.post(CONFIG_MAPS, config_map("b"))
    gone = await api.get(f"{CONFIG_MAPS}/a")
    await api.delete(f"{CONFIG_MAPS}/a")
    async with watch(api, f"{CONFIG_MAPS}?resourceVersion={version}") as stream:
        assert await stream.names(1) == [("ADDED", "b")]
        deleted = await stream.next()
        assert deleted["type"] == "DELETED"
        assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(gone["metadata"]["resourceVersion"])


async def test_a_watch_stays_within_its_namespace_and_name(api: Api) -> None:
    async with watch(api, f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Db") as stream:
        await api.post("/api/v1/namespaces/kube-system/configmaps", config_map("b"))
        await api.post(CONFIG_MAPS, config_map("a"))
        await api.post(CONFIG_MAPS, config_map("b"))
        event = await stream.next()
        assert (event["object"]["metadata"]["namespace"], event["object"]["metadata"]["name"]) == ("default", "b")


async def test_an_object_enters_and_leaves_a_selection(api: Api) -> None:
    async with watch(api, f"{CONFIG_MAPS}?labelSelector=on=yes") as stream:
        await api.post(CONFIG_MAPS, labelled("a"))
        await api.merge(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"on": "yes"}}})
        await api.merge(f"{CONFIG_MAPS}/a", {"data": {"x": "1"}})
        await api.merge(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"on": "no"}}})
        await api.delete(f"{CONFIG_MAPS}/a")
        await api.post(CONFIG_MAPS, labelled("b", on="yes"))
        assert await stream.names(4) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b")]


async def test_a_watch_ends_when_its_time_is_over(api: Api) -> None:
    async with watch(api, f"{CONFIG_MAPS}?timeoutSeconds=1") as stream:
        assert await stream.ended()


async def test_a_streaming_list_ends_its_first_part_with_a_bookmark(api: Api) -> None:
    await api.post(CONFIG_MAPS, config_map("a"))
    query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with watch(api, f"{CONFIG_MAPS}?{query}") as stream:
        assert await stream.names(1) == [("ADDED", "a")]
        bookmark = await stream.next()
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_version_beyond_the_history_is_gone(
    settings: Callable[..., ApiServerSettings], certificates: Certificates
) -> None:
    server = await start_api_server(settings(history_per_resource=10, bookmark_interval_s=0.05))
    async with session_for(certificates) as session:
        api = Api(server, session)
        first = await api.post(CONFIG_MAPS, config_map("a"))
        for index in range(300):
            await api.merge(f"{CONFIG_MAPS}/a", {"data": {"x": str(index)}})
        version = first["metadata"]["resourceVersion"]
        async with watch(api, f"{CONFIG_MAPS}?resourceVersion={version}") as stream:
            event = await stream.next()
            assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
            assert event["object"]["message"].startswith(f"too old resource version: {version} (")
            assert await stream.ended()
        with pytest.raises(Refused) as refused:
            await api.get(f"{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")
        assert refused.value.code == 410
        async with watch(api, f"{CONFIG_MAPS}?allowWatchBookmarks=true&resourceVersion={server.store.rv}") as stream:
            assert (await stream.next())["type"] == "BOOKMARK"
        assert sum(1 for _ in server.store._journal.revisions()) < 300, "old revisions leave the disk too"
    await server.stop()


async def test_every_watcher_sees_every_change_once_in_order(api: Api) -> None:
    async with watch(api, CONFIG_MAPS) as one, watch(api, CONFIG_MAPS) as two:
        await asyncio.gather(*(api.post(CONFIG_MAPS, config_map(f"c{index:03}")) for index in range(100)))
        for stream in (one, two):
            events = [await stream.next() for _ in range(100)]
            versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
            assert versions == sorted(set(versions))


async def test_a_long_list_comes_whole_in_each_form(api: Api) -> None:
    for number in range(40):
        await api.post(CONFIG_MAPS, config_map(f"long-{number:02}", text="x" * 10_000))
    expected = [f"long-{number:02}" for number in range(40)]
    listing = await api.get(CONFIG_MAPS)
    assert [item["metadata"]["name"] for item in listing["items"]] == expected
    assert {item["data"]["text"] for item in listing["items"]} == {"x" * 10_000}
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = await api.get(f"{CONFIG_MAPS}?includeObject=Object", headers=accept)
    assert [row["cells"][0] for row in table["rows"]] == expected
    assert [row["object"]["data"] for row in table["rows"]] == [{"text": "x" * 10_000}] * 40


def test_of_many_objects_only_those_looked_into_last_are_kept_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_MOST_PARSED", 10)
    monkeypatch.setattr(storage, "_parsed", deque())
    store = Store(tmp_path / "state.db", history_per_resource=5)
    kept = [store.put("configmaps.", {"metadata": {"name": f"n-{n:03}"}, "data": {"n": n}}) for n in range(50)]
    assert sum(stored._obj is not None for stored in kept) == 10
    assert [stored.obj["data"]["n"] for stored in store.all("configmaps.")] == list(range(50))
    assert sum(stored._obj is not None for stored in kept) == 10


def test_lists_follow_creations_changes_and_deletions(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", history_per_resource=5)

    def put(namespace: str, name: str, value: int) -> Stored:
        return store.put("configmaps.", {"metadata": {"name": name, "namespace": namespace}, "value": value})

    def listed(namespace: str | None = None) -> list[tuple[str, str, int]]:
        return [(one.namespace, one.name, one.obj["value"]) for one in store.all("configmaps.", namespace)]

    put("b", "x", 1)
    put("a", "z", 2)
    first = put("a", "y", 3)
    assert listed() == [("a", "y", 3), ("a", "z", 2), ("b", "x", 1)]
    put("a", "y", 4)
    assert listed() == [("a", "y", 4), ("a", "z", 2), ("b", "x", 1)]
    assert listed("a") == [("a", "y", 4), ("a", "z", 2)]
    store.delete("configmaps.", first)
    assert listed("a") == [("a", "z", 2)]
    assert listed() == [("a", "z", 2), ("b", "x", 1)]
    assert [one.obj["value"] for one in store.snapshot("configmaps.", "a", first.rv)] == [3, 2]
