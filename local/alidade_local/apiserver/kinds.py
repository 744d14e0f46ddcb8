"""What a kind adds to the generic handling of objects: defaults, rules, and what a write may not touch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alidade_local.apiserver.errors import FieldError

Json = dict[str, Any]


def _nothing(_: Json) -> None:
    return None


def _no_errors(_: Json, __: Json | None) -> Sequence[FieldError]:
    return ()


def _no_change(_: Json, __: Json) -> None:
    return None


@dataclass(frozen=True)
class KindRules:
    """The hooks of one kind; the defaults are those of a kind without any peculiarity."""

    default: Callable[[Json], None] = _nothing
    """Fills in fields in place, on every write."""
    prepare_create: Callable[[Json], None] = _nothing
    """Sets what only the server sets on a new object (an initial phase, an allocated address)."""
    prepare_update: Callable[[Json, Json], None] = _no_change
    """(new, old): carries over what the server allocated."""
    validate: Callable[[Json, Json | None], Sequence[FieldError]] = _no_errors
    """(new, old or nothing): what is wrong."""
    counts_generation: bool = True
    """Whether metadata.generation counts changes of the desired state."""
    grace_period: Callable[[Json], int] = lambda _: 0
    """Seconds that a deletion waits for somebody (the kubelet) to finish it."""
    default_propagation: str = ""
    """What happens to dependents when a deletion does not say; empty means Background."""
    requires_version_on_update: bool = False
    """Whether an update without metadata.resourceVersion is refused."""


PLAIN = KindRules()
UNCOUNTED = KindRules(counts_generation=False)
CUSTOM = KindRules(requires_version_on_update=True)
