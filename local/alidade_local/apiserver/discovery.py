"""What kubectl asks first: which groups, versions and resources there are."""

from typing import Any

from alidade_local.apiserver.builtin_schemas import KUBERNETES_VERSION
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.resources import Resource

Json = dict[str, Any]


def version() -> Json:
    """The answer to /version."""
    major, minor = KUBERNETES_VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}.0+alidade",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "linux/amd64",
    }


class Discovery:
    """Answers built from the registry at the moment of asking."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def _versions(self) -> dict[str, list[str]]:
        return {**self._registry.groups(), **{group: ["v1"] for group in REVIEWS}}

    def core_versions(self, address: str) -> Json:
        """GET /api."""
        return {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        }

    def groups(self) -> Json:
        """GET /apis."""
        named = [name for name in self._versions() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._group(name) for name in named]}

    def group(self, name: str) -> Json | None:
        """GET /apis/GROUP."""
        if name not in self._versions():
            return None
        return {"kind": "APIGroup", "apiVersion": "v1", **self._group(name)}

    def _group(self, name: str) -> Json:
        versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in self._versions()[name]]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def resources(self, group: str, version: str) -> Json | None:
        """GET /api/v1 and /apis/GROUP/VERSION."""
        found = [item for item in self._registry if item.group == group and item.version == version]
        if not found and not (version == "v1" and group in REVIEWS):
            return None
        entries = [entry for resource in found for entry in _legacy_entries(resource)] + _review_entries(group)
        group_version = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}

    def aggregated(self, api_version: str, *, core: bool) -> Json:
        """GET /api or /apis in one document (apidiscovery.k8s.io)."""
        items = []
        for group, versions in self._versions().items():
            if (group == "") is not core:
                continue
            items.append(
                {
                    "metadata": {"name": group, "creationTimestamp": None},
                    "versions": [self._aggregated_version(group, version) for version in versions],
                }
            )
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{api_version}",
            "metadata": {},
            "items": items,
        }

    def _aggregated_version(self, group: str, version: str) -> Json:
        found = [item for item in self._registry if item.group == group and item.version == version]
        return {
            "version": version,
            "freshness": "Current",
            "resources": [_aggregated_entry(resource) for resource in found] + _review_aggregates(group),
        }


def _names(resource: Resource) -> Json:
    more: Json = {}
    if resource.short_names:
        more["shortNames"] = list(resource.short_names)
    if resource.categories:
        more["categories"] = list(resource.categories)
    return more


def subresources(resource: Resource) -> list[tuple[str, Json, list[str]]]:
    """Subresource names with the group, version and kind they speak, and their verbs."""
    found: list[tuple[str, Json, list[str]]] = []
    own = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    if resource.has_status:
        found.append(("status", own, ["get", "patch", "update"]))
    if resource.scale is not None:
        found.append(("scale", {"group": "autoscaling", "version": "v1", "kind": "Scale"}, ["get", "patch", "update"]))
    if resource.key == "pods.":
        found.append(("log", own, ["get"]))
        found.append(("binding", {"group": "", "version": "v1", "kind": "Binding"}, ["create"]))
        found.append(("eviction", {"group": "policy", "version": "v1", "kind": "Eviction"}, ["create"]))
        kind = {"group": "", "version": "v1", "kind": "PodPortForwardOptions"}
        found.append(("portforward", kind, ["create", "get"]))
    if resource.key in ("pods.", "services."):
        kind = {"group": "", "version": "v1", "kind": f"{resource.kind}ProxyOptions"}
        found.append(("proxy", kind, ["create", "delete", "get", "patch", "update"]))
    if resource.key == "namespaces.":
        found.append(("finalize", own, ["update"]))
    if resource.key == "serviceaccounts.":
        kind = {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}
        found.append(("token", kind, ["create"]))
    return found


def _legacy_entries(resource: Resource) -> list[Json]:
    entries: list[Json] = [
        {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
            **_names(resource),
        }
    ]
    for name, kind, verbs in subresources(resource):
        entry: Json = {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": kind["kind"],
            "verbs": verbs,
        }
        if (kind["group"], kind["version"]) != (resource.group, resource.version):
            entry |= {"group": kind["group"], "version": kind["version"]}
        entries.append(entry)
    return entries


def _aggregated_entry(resource: Resource) -> Json:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    entry: Json = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
        **_names(resource),
    }
    below = [
        {"subresource": name, "responseKind": answer, "verbs": verbs} for name, answer, verbs in subresources(resource)
    ]
    if below:
        entry["subresources"] = below
    return entry


REVIEWS: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "authorization.k8s.io": (
        ("localsubjectaccessreviews", "LocalSubjectAccessReview", True),
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
        ("subjectaccessreviews", "SubjectAccessReview", False),
    ),
    "authentication.k8s.io": (
        ("tokenreviews", "TokenReview", False),
        ("selfsubjectreviews", "SelfSubjectReview", False),
    ),
}
"""Resources that are only questions: created, answered, never stored."""


def _review_entries(group: str) -> list[Json]:
    return [
        {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["create"]}
        for plural, kind, namespaced in REVIEWS.get(group, ())
    ]


def _review_aggregates(group: str) -> list[Json]:
    return [
        {
            "resource": plural,
            "responseKind": {"group": group, "version": "v1", "kind": kind},
            "scope": "Namespaced" if namespaced else "Cluster",
            "singularResource": kind.lower(),
            "verbs": ["create"],
        }
        for plural, kind, namespaced in REVIEWS.get(group, ())
    ]
