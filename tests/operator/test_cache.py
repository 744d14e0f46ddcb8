"""Rules of the cache: the newest version stays, whatever order versions come in."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from alidade_operator.api import ALIGNMENT_RUN, CLAIM, FINE_TUNE_JOB, POD, PYTORCH_JOB, REWARD_MODEL, Kind
from alidade_operator.cache import TOMBSTONES, Cache, Key, key_of, trim


def thing(kind: Kind = FINE_TUNE_JOB, name: str = "a", *, uid: str = "u1", version: int = 1, **content: Any) -> Any:
    """An object of the API."""
    metadata = {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version)}
    return {"kind": kind.kind, "metadata": metadata | content.pop("metadata", {}), **content}


KEY = Key("FineTuneJob", "n", "a")


def test_the_newest_version_stays_in_whatever_order_versions_come() -> None:
    versions = list(range(1, 30))
    random.Random(3).shuffle(versions)
    cache = Cache()
    for version in versions:
        cache.put(FINE_TUNE_JOB, thing(version=version))
    known = cache.get(KEY)
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "29"


def test_a_version_that_is_not_newer_is_no_change() -> None:
    cache = Cache()
    assert cache.put(FINE_TUNE_JOB, thing(version=5)) is True
    assert cache.put(FINE_TUNE_JOB, thing(version=5)) is False
    assert cache.put(FINE_TUNE_JOB, thing(version=4)) is False


def test_versions_are_numbers_and_not_text() -> None:
    cache = Cache()
    cache.put(FINE_TUNE_JOB, thing(version=9))
    assert cache.put(FINE_TUNE_JOB, thing(version=10)) is True


def test_what_is_gone_is_not_brought_back_by_a_late_event() -> None:
    cache = Cache()
    cache.put(FINE_TUNE_JOB, thing(version=5))
    assert cache.remove(FINE_TUNE_JOB, thing(version=6)) is True
    assert cache.put(FINE_TUNE_JOB, thing(version=5)) is False
    assert cache.get(KEY) is None
    assert cache.put(FINE_TUNE_JOB, thing(uid="u2", version=7)) is True, "another one of that name"


def test_the_end_of_an_older_object_does_not_take_the_newer_one_of_its_name() -> None:
    cache = Cache()
    cache.put(FINE_TUNE_JOB, thing(uid="u2", version=9))
    assert cache.remove(FINE_TUNE_JOB, thing(uid="u1", version=8)) is False
    assert cache.put(FINE_TUNE_JOB, thing(uid="u0", version=3)) is False
    known = cache.get(KEY)
    assert known is not None
    assert known["metadata"]["uid"] == "u2"


def test_a_listing_removes_what_the_watch_lost_and_spares_what_is_newer() -> None:
    cache = Cache()
    for name, version in (("kept", 1), ("lost", 2), ("newer", 11)):
        cache.put(FINE_TUNE_JOB, thing(name=name, uid=name, version=version))
    lost = cache.prune(FINE_TUNE_JOB, [thing(name="kept", uid="kept")], "10", [])
    assert [body["metadata"]["name"] for body in lost] == ["lost"]
    assert {body["metadata"]["name"] for body in cache.all(FINE_TUNE_JOB)} == {"kept", "newer"}


def test_what_a_listing_does_not_show_may_come_back() -> None:
    """A PyTorchJob of somebody else carries no label of ours, and is read again whenever it is in the way."""
    cache = Cache()
    cache.put(PYTORCH_JOB, thing(PYTORCH_JOB, version=5))
    assert len(cache.prune(PYTORCH_JOB, [], "10", [])) == 1
    assert cache.put(PYTORCH_JOB, thing(PYTORCH_JOB, version=5)) is True


def test_a_listing_of_one_namespace_says_nothing_about_another() -> None:
    cache = Cache()
    cache.put(FINE_TUNE_JOB, thing())
    assert cache.prune(FINE_TUNE_JOB, [], "10", ["other"]) == []


def test_children_are_found_by_the_labels_of_their_resource() -> None:
    cache = Cache()
    labels = {"alidade.dev/kind": "FineTuneJob", "app.kubernetes.io/instance": "a"}
    cache.put(PYTORCH_JOB, thing(PYTORCH_JOB, "a-1", uid="j", metadata={"labels": labels}))
    cache.put(POD, thing(POD, "a-1-master-0", uid="p", metadata={"labels": labels}))
    others = labels | {"app.kubernetes.io/instance": "b"}
    cache.put(POD, thing(POD, "b-1-master-0", uid="o", metadata={"labels": others}))
    assert [child["metadata"]["name"] for child in cache.children(KEY)] == ["a-1-master-0", "a-1"]
    cache.remove(POD, thing(POD, "a-1-master-0", uid="p", version=2))
    assert [child["metadata"]["name"] for child in cache.children(KEY)] == ["a-1"]


def test_dependents_are_found_by_the_model_they_wait_for() -> None:
    cache = Cache()
    reference = {"model": {"from": {"kind": "FineTuneJob", "name": "a"}}}
    cache.put(FINE_TUNE_JOB, thing(name="b", uid="b", spec=reference))
    assert cache.dependents(KEY) == [Key("FineTuneJob", "n", "b")]
    cache.put(FINE_TUNE_JOB, thing(name="b", uid="b", version=2, spec={"model": {"uri": "hf://a/b"}}))
    assert cache.dependents(KEY) == []


def test_a_run_depends_on_all_that_its_spec_names_and_on_what_it_has_taken() -> None:
    def source(name: str, kind: str = "FineTuneJob") -> Any:
        return {"model": {"from": {"kind": kind, "name": name}}}

    spec = {
        "sft": {"template": source("base")},
        "rewardModels": [
            {"name": "a", "ref": {"name": "judge"}},
            {"name": "b", "template": source("chat")},
            {"name": "c", **source("reward", "RewardModel")},
            {"name": "d", "function": "length"},
        ],
    }
    stages = [{"name": "sft", "kind": "FineTuneJob", "ref": "others-sft-1"}]
    cache = Cache()
    cache.put(ALIGNMENT_RUN, thing(ALIGNMENT_RUN, "run", spec=spec, status={"stages": stages}))
    run = Key("AlignmentRun", "n", "run")
    named = [
        ("FineTuneJob", "base"), ("RewardModel", "judge"), ("FineTuneJob", "chat"), ("RewardModel", "reward"),
        ("FineTuneJob", "others-sft-1"),
    ]  # fmt: skip
    for kind, name in named:
        assert cache.dependents(Key(kind, "n", name)) == [run], name
        assert cache.dependents(Key(kind, "elsewhere", name)) == []
    cache.put(ALIGNMENT_RUN, thing(ALIGNMENT_RUN, "run", version=2, spec={"sft": {"ref": {"name": "mine"}}}))
    assert [name for kind, name in named if cache.dependents(Key(kind, "n", name))] == []
    assert cache.dependents(Key("FineTuneJob", "n", "mine")) == [run]


def test_what_comes_from_the_same_inputs_is_found_in_its_namespace_by_label_or_by_stage() -> None:
    cache = Cache()
    label = {"labels": {"alidade.dev/inputs": "abc"}}
    cache.put(REWARD_MODEL, thing(REWARD_MODEL, "one", uid="1", metadata=label))
    stages = [
        {"name": "1-raft", "kind": "Alignment", "inputs": "abc"},
        {"name": "sft", "kind": "FineTuneJob", "inputs": "x"},
    ]
    cache.put(ALIGNMENT_RUN, thing(ALIGNMENT_RUN, "run", uid="2", status={"stages": stages}))
    assert [body["metadata"]["name"] for body in cache.alike("n", "abc")] == ["run", "one"]
    assert list(cache.alike("n", "x")) == [], "a run is told by its alignment only: its stages have labels"
    assert list(cache.alike("other", "abc")) == []
    cache.remove(REWARD_MODEL, thing(REWARD_MODEL, "one", uid="1", version=2))
    assert [body["metadata"]["name"] for body in cache.alike("n", "abc")] == ["run"]


def test_what_a_run_has_made_is_its_child() -> None:
    cache = Cache()
    labels = {"alidade.dev/kind": "AlignmentRun", "app.kubernetes.io/instance": "run"}
    cache.put(FINE_TUNE_JOB, thing(name="run-sft-1", metadata={"labels": labels}))
    cache.put(PYTORCH_JOB, thing(PYTORCH_JOB, "run-align-1-1", uid="j", metadata={"labels": labels}))
    assert [child["kind"] for child in cache.children(Key("AlignmentRun", "n", "run"))] == ["FineTuneJob", "PyTorchJob"]


def test_a_claim_is_only_a_name_and_a_pod_only_what_plans_look_at() -> None:
    claim = trim(CLAIM, thing(CLAIM, spec={"resources": {}}, status={"phase": "Bound"}))
    assert set(claim) == {"kind", "metadata"}
    fat = thing(POD, spec={"containers": [{}], "nodeName": "n1"}, status={"phase": "Running", "hostIPs": []})
    fat["metadata"]["managedFields"] = [{}]
    pod = trim(POD, fat)
    assert pod["spec"] == {"nodeName": "n1"}
    assert pod["status"] == {"phase": "Running"}
    assert "managedFields" not in pod["metadata"]


def test_the_memory_of_what_is_gone_is_bounded() -> None:
    cache = Cache()
    for number in range(TOMBSTONES + 10):
        cache.remove(POD, thing(POD, uid=f"u{number}"))
    assert cache.put(POD, thing(POD, uid="u0")) is True, "the oldest is forgotten"
    assert cache.put(POD, thing(POD, uid="u100")) is False


@given(st.permutations(range(8)), st.integers(0, 7))
def test_events_in_any_order_end_in_the_same_state(order: list[int], deleted_at: int) -> None:
    """Versions 0..7 of one object, of which one is its deletion: with it the object is gone, whenever it arrives."""
    cache = Cache()
    for version in order:
        body = thing(version=version + 1)
        if version == deleted_at:
            cache.remove(FINE_TUNE_JOB, body)
        else:
            cache.put(FINE_TUNE_JOB, body)
    assert cache.get(key_of(FINE_TUNE_JOB, thing())) is None
