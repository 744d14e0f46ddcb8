"""Which resources exist at this moment."""

from collections.abc import Callable, Iterable, Iterator

from alidade_local.apiserver.resources import Resource


class Registry:
    """All resources by group, version and plural; changes when CRDs come and go."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._resources: dict[tuple[str, str, str], Resource] = {}
        self._listeners: list[Callable[[], None]] = []
        for resource in resources:
            self._resources[resource.group, resource.version, resource.plural] = resource

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._resources.values()))

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource of a request path."""
        return self._resources.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource whose objects have this apiVersion and kind."""
        for resource in self._resources.values():
            if resource.kind == kind and resource.api_version == api_version:
                return resource
        return None

    def of_key(self, key: str) -> Resource | None:
        """The first resource whose objects are stored under a key."""
        return next((item for item in self._resources.values() if item.key == key and item.stored_view is None), None)

    def replace_custom(self, key: str, resources: Iterable[Resource]) -> None:
        """Put the versions of one custom resource in place of those there were."""
        for at, resource in list(self._resources.items()):
            if resource.custom and resource.key == key:
                del self._resources[at]
        for resource in resources:
            self._resources[resource.group, resource.version, resource.plural] = resource
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call back whenever resources come or go."""
        self._listeners.append(listener)

    def groups(self) -> dict[str, list[str]]:
        """Group names with their versions, the preferred one first; the core group is the empty name."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._resources:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found
