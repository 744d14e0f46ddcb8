"""Rules of the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from alidade_operator.config import ConfigError, NodePool, OperatorConfig, listening_host, load_config, read_config


def write(folder: Path, text: str) -> Path:
    path = folder / "operator.yaml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_hold() -> None:
    config = load_config({})
    assert config == OperatorConfig()
    assert [pool.name for pool in config.node_pools] == ["default"]
    assert config.workspace_claim == "alidade-workspace"


def test_a_file_is_read_in_camel_case(tmp_path: Path) -> None:
    text = "nodePools: [{name: a, gpusPerNode: 8, gpuMemoryGib: 80}, {name: b}]\nworkspaceClaim: shared\n"
    config = load_config({"ALIDADE_CONFIG": str(write(tmp_path, text))})
    assert config.workspace_claim == "shared"
    first, second = config.pool(None), config.pool("b")
    assert first is not None
    assert first.gpu_memory_gib == 80
    assert second is not None
    assert second.gpus_per_node == 0
    assert config.pool("c") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodePools: [{name: a}, {name: a}]", "nodePools: a is there twice; give every pool its own name"),
        ("nodePool: []", "nodePool: Extra inputs are not permitted"),
        ("retryDelayS: -1", "retryDelayS: Input should be greater than 0"),
        ("nodePools: [{name: a, gpus: 8}]", "nodePools.0.gpus: Extra inputs are not permitted"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_naming_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ALIDADE_CONFIG must name a YAML file"):
        load_config({"ALIDADE_CONFIG": str(tmp_path / "none.yaml")})


@pytest.mark.parametrize(
    ("host", "environ", "address"),
    [
        ("", {}, None),
        ("", {"POD_IP": "127.63.0.1"}, "127.63.0.1"),
        ("10.0.0.1", {"POD_IP": "127.63.0.1"}, "10.0.0.1"),
    ],
)
def test_what_is_not_told_listens_at_the_pods_address_or_at_all(
    host: str, environ: dict[str, str], address: str | None
) -> None:
    assert listening_host(host, environ) == address


def test_every_setting_says_what_it_does() -> None:
    for model in (OperatorConfig, NodePool):
        for name, field in model.model_fields.items():
            assert field.description, name
