"""What a resource is: its names, its scope, what can be done with it, and how its objects are typed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alidade_local.apiserver.kinds import KindRules
    from alidade_local.apiserver.schema import Schema

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Column:
    """A printer column of a CustomResourceDefinition."""

    name: str
    type: str
    json_path: str
    description: str = ""
    format: str = ""
    priority: int = 0


@dataclass(frozen=True)
class ScalePaths:
    """Where a resource keeps what its scale subresource shows."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str | None = None


@dataclass(frozen=True)
class Resource:
    """One plural name of one group and version."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    rules: "KindRules"
    load_schema: "Callable[[], Schema]"
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    has_status: bool = False
    scale: ScalePaths | None = None
    columns: tuple[Column, ...] = ()
    custom: bool = False
    schema_rv: int = 0
    """Resource version from which objects were written under the current schema (custom resources)."""
    storage_version: str = ""
    """Version in which objects are stored; empty means this one."""
    stored_view: "Resource | None" = None
    """The resource that stores the objects, when this one is another view of them (events.k8s.io)."""
    convert_in: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    convert_out: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    selectable_fields: tuple[str, ...] = field(default=())

    @cached_property
    def api_version(self) -> str:
        """`group/version`, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def storage_api_version(self) -> str:
        """The apiVersion of stored objects."""
        return f"{self.group}/{self.storage_version}" if self.storage_version else self.api_version

    @cached_property
    def group_resource(self) -> str:
        """`plural.group`, the name used in messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def key(self) -> str:
        """The name under which objects are stored: the same for every version of a resource."""
        stored = self.stored_view or self
        return f"{stored.plural}.{stored.group}"

    @cached_property
    def schema(self) -> "Schema":
        """The typed shape of its objects, loaded on first use."""
        return self.load_schema()

    @cached_property
    def kind_of_list(self) -> str:
        """Kind of a list of these objects."""
        return self.list_kind or f"{self.kind}List"
