"""Where the programs of a real API server are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from alidade_local.errors import ClusterError

VARIABLE = "KUBEBUILDER_ASSETS"


def find_assets(environ: Mapping[str, str]) -> Path | None:
    """The folder with kube-apiserver and etcd that KUBEBUILDER_ASSETS names; None where it is not set.

    Raises ClusterError when they are not in it.
    """
    if not environ.get(VARIABLE):
        return None
    folder = Path(environ[VARIABLE]).absolute()
    for name in ("kube-apiserver", "etcd"):
        if not os.access(folder / name, os.X_OK):
            raise ClusterError(
                f"{VARIABLE} is {folder}, where there is no program {name}; name a folder that has it, or unset the "
                "variable for the API server that comes with the local cluster"
            )
    return folder
