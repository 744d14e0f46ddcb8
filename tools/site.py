"""Hooks of mkdocs: pages that lie beside docs/ become part of the site, and links to other files lead to the forge."""

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Pages by where they are in the repository, and where on the site.
BESIDE = {
    "README.md": "index.md",
    "docs/README.md": "guide.md",
    "bench/README.md": "bench.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/decisions": "decisions/0001-one-pytorchjob-per-attempt.md",
}
_LINK = re.compile(r"(!?)\[([^\]\[]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds the pages from beside docs/, and its README by another name: the first page is the repository's."""
    from mkdocs.structure.files import File

    readme = files.get_file_from_path("README.md")
    assert readme is not None
    files.remove(readme)
    for source, target in BESIDE.items():
        if source.endswith(".md"):
            files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Turns links between places of the repository into links between places of the site."""
    del files
    own = page.file.src_uri
    source = next((place for place, target in BESIDE.items() if target == own), f"docs/{own}")
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else rewritten(part, source, own, config.repo_url) for part in parts)


def on_page_content(html: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Lets names of fields fit into tables."""
    del page, config, files
    return with_breaks(html)


def with_breaks(html: str) -> str:
    """The page, where a browser may break names of fields in tables after their dots, and nowhere else."""
    return re.sub(r"(?<=<td><code>)[\w.\[\]]+(?=</code>)", lambda match: match[0].replace(".", ".<wbr>"), html)


def rewritten(text: str, source: str, own: str, repository: str | None) -> str:
    """The text with its relative links as the site needs them. source, own: the page in the repository, on the site."""

    def replace(match: re.Match[str]) -> str:
        mark, words, link = match.groups()
        path, hash_, anchor = link.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        target = BESIDE.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
        if target is not None:
            return f"{mark}[{words}]({posixpath.relpath(target, posixpath.dirname(own) or '.')}{hash_}{anchor})"
        return f"[{words}]({repository.rstrip('/')}/blob/main/{place}{hash_}{anchor})" if repository else words

    return _LINK.sub(replace, text)
