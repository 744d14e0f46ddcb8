"""Server-side apply against a model of its rules, on random histories of random managers."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alidade_local.apiserver import managed_fields
from alidade_local.apiserver.errors import ApiError
from alidade_local.apiserver.kinds import CUSTOM
from alidade_local.apiserver.options import WriteOptions
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.schema import Schema
from alidade_local.apiserver.server_side_apply import applied

Json = dict[str, Any]

_NUMBERS = {"type": "object", "additionalProperties": {"type": "integer"}}
_NAMES = {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
SCHEMA = Schema(
    {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"numbers": _NUMBERS, "names": _NAMES}}},
    }
)
RESOURCE = Resource("test.dev", "v1", "things", "thing", "Thing", True, CUSTOM, lambda: SCHEMA, custom=True)

numbers = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2), max_size=4)
names = st.lists(st.sampled_from("xyz"), unique=True, max_size=3)
steps = st.lists(
    st.tuples(st.sampled_from(["one", "two", "three"]), numbers, names, st.booleans()), min_size=1, max_size=12
)


class Model:
    """What the rules say, for numbers by key and a set of names."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.owners: dict[tuple[str, str], set[str]] = {}

    def apply(self, manager: str, wanted: dict[str, int], wanted_names: list[str], *, force: bool) -> bool:
        """Whether the application succeeds; the state is then as after it."""
        changed = {key for key, value in wanted.items() if key in self.numbers and self.numbers[key] != value}
        if not force and any(self.owners[("numbers", key)] - {manager} for key in changed):
            return False
        for key in changed:
            self.owners[("numbers", key)] = {manager}
        mine = {("numbers", key) for key in wanted} | {("names", name) for name in wanted_names}
        for at in mine:
            self.owners.setdefault(at, set()).add(manager)
        self.numbers.update(wanted)
        for at in [at for at, owners in self.owners.items() if manager in owners and at not in mine]:
            self.owners[at].discard(manager)
            if not self.owners[at]:
                del self.owners[at]
                if at[0] == "numbers":
                    del self.numbers[at[1]]
        return True

    @property
    def names(self) -> set[str]:
        return {name for kind, name in self.owners if kind == "names"}


def config(wanted: dict[str, int], wanted_names: list[str]) -> Json:
    return {
        "apiVersion": "test.dev/v1",
        "kind": "Thing",
        "metadata": {"name": "t", "namespace": "n"},
        "spec": {**({"numbers": wanted} if wanted else {}), **({"names": wanted_names} if wanted_names else {})},
    }


def applied_or_conflict(live: Json, wanted: Json, options: WriteOptions) -> Json | None:
    """The object after an application, or nothing when it is a conflict."""
    try:
        return applied(live, wanted, RESOURCE, options, "")
    except ApiError as refused:
        if refused.code != 409:
            raise
        return None


@settings(max_examples=150)
@given(steps)
def test_apply_follows_the_rules_of_ownership(history: list[tuple[str, dict[str, int], list[str], bool]]) -> None:
    live: Json = {"apiVersion": "test.dev/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "n"}}
    model = Model()
    for manager, wanted, wanted_names, force in history:
        options = WriteOptions(field_manager=manager, force=force)
        result = applied_or_conflict(live, config(dict(wanted), list(wanted_names)), options)
        live = live if result is None else result
        assert (result is not None) is model.apply(manager, wanted, wanted_names, force=force)
        spec = live.get("spec") or {}
        assert (spec.get("numbers") or {}) == model.numbers
        assert set(spec.get("names") or ()) == model.names
        for key, managed in managed_fields.read(live).items():
            own = {path for path in managed.fields.paths() if path not in (".spec", ".spec.numbers", ".spec.names")}
            expected = {
                f".spec.numbers.{name}" if kind == "numbers" else f'.spec.names[="{name}"]'
                for (kind, name), owners in model.owners.items()
                if key.manager in owners
            }
            assert own == expected


@settings(max_examples=100)
@given(numbers, names)
def test_applying_twice_is_applying_once(wanted: dict[str, int], wanted_names: list[str]) -> None:
    empty: Json = {"apiVersion": "test.dev/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "n"}}
    options = WriteOptions(field_manager="one")
    once = applied(empty, config(wanted, wanted_names), RESOURCE, options, "")
    assert applied(once, config(wanted, wanted_names), RESOURCE, options, "") == once
