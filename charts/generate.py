"""Writes what of the chart is generated: CRDs, values with their schema and page, dashboards.

python -m charts.generate            writes
python -m charts.generate --check    exits 1 and names the files that differ
"""

import argparse
import json
import sys
from pathlib import Path

from alidade_crds.crd import KINDS, crd_manifest
from alidade_crds.reference import settings_reference
from charts.crdtemplates import crd_template
from charts.dashboards.fleet import fleet
from charts.dashboards.operator import operator
from charts.dashboards.run import run
from charts.dashboards.serving import serving
from charts.values import Values
from charts.valuesfile import values_schema, values_yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "alidade"

_PAGE = """Generated from `charts/values.py`, as `charts/alidade/values.yaml` is. `config` takes the fields of the
[operator configuration](operator-configuration.md), but for those that the chart sets; its defaults are the operator's.
[Install with Helm](../how-to/install-with-helm.md) shows which values matter first."""


def generated_files() -> dict[Path, str]:
    """Path and text of every generated file."""
    files = {
        CHART / "values.yaml": values_yaml(),
        CHART / "values.schema.json": values_schema(),
        ROOT / "docs" / "reference" / "chart-values.md": settings_reference("Chart values", _PAGE, Values),
    }
    for kind in KINDS:
        manifest = crd_manifest(kind)
        files[CHART / "templates" / "crds" / f"{kind.plural}.yaml"] = crd_template(manifest)
    for page in (fleet(), operator(), run(), serving()):
        name = page["uid"].removeprefix("alidade-")
        files[CHART / "files" / "dashboards" / f"{name}.json"] = json.dumps(page, indent=1) + "\n"
    return files


def main(argv: list[str]) -> int:
    """Writes or checks the generated files; returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes what of the chart is generated.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args(argv).check
    files = generated_files()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if check:
        for path in stale:
            print(
                f"{path.relative_to(ROOT)} is not what the types say; run `python -m charts.generate`", file=sys.stderr
            )
        return 1 if stale else 0
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
