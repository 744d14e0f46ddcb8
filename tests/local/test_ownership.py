"""What follows when owners go, as the rules say it."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_local.ownership import Action, Delete, DropOwners, OwnershipGraph, RemoveFinalizer


def metadata(uid: str, *owners: str, finalizer: str = "", deleting: bool = False, **more: Any) -> dict[str, Any]:
    """Of an object whose name is its uid; an owner with `!` blocks."""
    references = [{"uid": owner.strip("!"), "blockOwnerDeletion": "!" in owner} for owner in owners]
    return {
        "uid": uid,
        "name": uid,
        "namespace": "n",
        "ownerReferences": references,
        "finalizers": [finalizer] if finalizer else [],
        **({"deletionTimestamp": "t"} if deleting else {}),
        **more,
    }


def graph(*objects: dict[str, Any]) -> OwnershipGraph[str]:
    made: OwnershipGraph[str] = OwnershipGraph()
    for item in objects:
        made.put("things", item)
    return made


def said(actions: list[Action[str]]) -> list[str]:
    """Actions in words."""
    words = []
    for action in actions:
        match action:
            case Delete():
                words.append(f"delete {action.node.uid} {action.propagation}")
            case DropOwners():
                words.append(f"free {action.node.uid} of {' '.join(sorted(action.uids))}")
            case RemoveFinalizer():
                words.append(f"take {action.finalizer} from {action.node.uid}")
    return words


ORPHANING = metadata("o", finalizer="orphan", deleting=True)
FIRST = metadata("o", finalizer="foregroundDeletion", deleting=True)


@pytest.mark.parametrize(
    ("objects", "of", "expected"),
    [
        ([metadata("a")], "a", []),
        ([metadata("o"), metadata("a", "o")], "a", []),
        ([metadata("a", "o")], "a", ["delete a Background"]),
        ([metadata("a", "o", deleting=True)], "a", []),
        ([metadata("a", "o", finalizer="foregroundDeletion")], "a", ["delete a Foreground"]),
        ([metadata("a", "o", finalizer="orphan")], "a", ["delete a Orphan"]),
        ([metadata("p"), metadata("a", "o", "p")], "a", ["free a of o"]),
        ([metadata("o", namespace="m"), metadata("a", "o")], "a", ["delete a Background"]),
        ([metadata("o", namespace=""), metadata("a", "o")], "a", []),
        (
            [ORPHANING, metadata("a", "o"), metadata("b", "o")],
            "o",
            ["free a of o", "free b of o", "take orphan from o"],
        ),
        ([FIRST], "o", ["take foregroundDeletion from o"]),
        ([FIRST, metadata("a", "o")], "o", ["delete a Background", "take foregroundDeletion from o"]),
        ([FIRST, metadata("a", "o!")], "o", ["delete a Background"]),
        ([FIRST, metadata("a", "o!", deleting=True)], "o", []),
        ([FIRST, metadata("a", "o!"), metadata("b", "a!")], "o", ["delete a Foreground"]),
        ([FIRST, metadata("p"), metadata("a", "o!", "p")], "o", []),
    ],
)
def test_what_is_to_be_done(objects: list[dict[str, Any]], of: str, expected: list[str]) -> None:
    assert said(graph(*objects).actions(of)) == expected


def test_who_has_to_be_looked_at_after_a_change() -> None:
    made = graph(metadata("o"), metadata("a", "o"), metadata("b", "a"))
    assert set(made.put("things", metadata("c"))) == set()
    assert set(made.drop("o")) == {"a"}, "its dependents lost an owner"
    assert set(made.put("things", FIRST)) == {"o"}
    assert set(made.drop("a")) == {"b", "o"}, "and an owner that waits for its last dependent may go"
    assert said(made.actions("o")) == ["take foregroundDeletion from o"]


def test_an_owner_that_waits_hears_of_a_dependent_that_is_given_away() -> None:
    made = graph(FIRST, metadata("p"), metadata("a", "o!"))
    assert set(made.put("things", metadata("a", "p"))) == {"o", "a"}
    assert made.actions("a") == []
