"""Every relative link of every document leads to a file and a heading that are there, on the forge and on the site."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from pathlib import Path

import pytest
import yaml

from tools.site import BESIDE, rewritten, with_breaks

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")


def text_of(path: Path) -> str:
    """A document without its blocks of code."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them: lower case, no punctuation, blanks as hyphens."""
    found: dict[str, int] = {}
    names = set()
    for line in re.findall(r"^#+ +(.+?)\s*#*$", text_of(path), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line).replace("`", "").strip().lower()
        kept = "".join(char for char in words if char in "-_ " or unicodedata.category(char)[0] in "LN")
        slug = kept.replace(" ", "-")
        count = found.get(slug, 0)
        names.add(slug if not count else f"{slug}-{count}")
        found[slug] = count + 1
    return names


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(text_of(path)):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        place = (path.parent / target).resolve() if target else path
        assert place.exists(), f"{link}: there is no {place}"
        assert place.is_relative_to(ROOT), link
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{link}: there is no such heading; there are {sorted(anchors(place))}"


def test_every_page_is_in_the_sites_menu() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"[\w/-]+\.md", text.partition("\nnav:")[2]))
    own = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS if (ROOT / "docs") in path.parents]
    pages = {path.removeprefix("docs/") for path in own if path not in BESIDE}
    assert listed == pages | {target for source, target in BESIDE.items() if source.endswith(".md")}


def test_the_guide_leads_to_every_page() -> None:
    guide = ROOT / "docs/README.md"
    linked = {(guide.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(text_of(guide))}
    decisions = ROOT / "docs/decisions"
    pages = {path for path in DOCUMENTS if (ROOT / "docs") in path.parents and decisions not in path.parents}
    assert pages - {guide} <= linked
    assert decisions in linked


def test_links_are_the_sites() -> None:
    text = (
        "[a](docs/how-to/align.md#x) [b](bench/README.md) [c](examples/kbqa) [d](https://x.y) ![e](docs/images/a.png)"
    )
    expected = "[a](how-to/align.md#x) [b](bench.md) c [d](https://x.y) ![e](images/a.png)"
    assert rewritten(text, "README.md", "index.md", None) == expected
    assert rewritten("[a](../../README.md)", "docs/how-to/align.md", "how-to/align.md", None) == "[a](../index.md)"
    forge = "https://git.example.com/ml/alidade/"
    linked = rewritten("[c](../../examples/kbqa)", "docs/how-to/align.md", "how-to/align.md", forge)
    assert linked == "[c](https://git.example.com/ml/alidade/blob/main/examples/kbqa)"


def test_names_of_fields_break_after_dots_and_other_code_does_not() -> None:
    html = "<td><code>nodePools[].env</code></td><td><code>a.b c</code></td><p><code>a.b</code></p>"
    broken = html.replace("[].env", "[].<wbr>env")
    assert with_breaks(html) == broken


def test_the_charts_alerts_have_their_places() -> None:
    """Alerts link to headings of a page."""
    rules = yaml.safe_load((ROOT / "charts/alidade/files/rules.yaml").read_text())
    named = {rule["alert"].lower() for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert named <= anchors(ROOT / "docs/how-to/monitor.md")
