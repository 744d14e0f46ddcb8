"""Which form of an answer a client wants: plain objects, their metadata, or a table; JSON or YAML."""

from dataclasses import dataclass

from alidade_local.apiserver.encoding import YAML_TYPES
from alidade_local.apiserver.errors import not_acceptable

SUPPORTED = ("application/json", "application/yaml")


@dataclass(frozen=True)
class Form:
    """What to answer with."""

    kind: str = ""
    """`Table`, `PartialObjectMetadata`, `PartialObjectMetadataList`, a discovery kind, or "" for the object itself."""
    version: str = ""
    yaml: bool = False


def parse_accept(header: str) -> list[tuple[str, dict[str, str]]]:
    """Media types with their parameters, the preferred ones first."""
    found: list[tuple[float, int, str, dict[str, str]]] = []
    for index, part in enumerate(header.split(",")):
        media, *pairs = (piece.strip() for piece in part.split(";"))
        parameters = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if media:
            found.append((-quality, index, media.lower(), parameters))
    return [(media, parameters) for _, _, media, parameters in sorted(found, key=lambda item: item[:2])]


def negotiate(header: str | None, transforms: tuple[str, ...]) -> Form:
    """The first form that the server can give, or 406."""
    if not header:
        return Form()
    for media, parameters in parse_accept(header):
        if media not in (*YAML_TYPES, "application/json", "*/*", "application/*"):
            continue
        yaml = media in YAML_TYPES
        wanted = parameters.get("as", "")
        if not wanted:
            return Form(yaml=yaml)
        if wanted in transforms:
            return Form(wanted, parameters.get("v", ""), yaml)
    raise not_acceptable(SUPPORTED)
