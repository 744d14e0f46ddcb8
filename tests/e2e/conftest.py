"""One cluster with an operator for all end-to-end tests, with the sums they train on."""

import json
from typing import Any

import pytest

from tests.e2e.jobs import PAIRS, Cluster, apply, config_map


@pytest.fixture(scope="session")
def trained_on_sums(cluster_with_operator: Any) -> Cluster:
    """The cluster, with the ConfigMap `sums`."""
    data = json.dumps({"type": "text2text", "instances": PAIRS})
    apply(cluster_with_operator, config_map("sums", train_json=data))
    found: Cluster = cluster_with_operator
    return found
