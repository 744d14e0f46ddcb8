"""The pod of each inference server: what it is told, and that the server knows every flag."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.modelserve import ModelServeSpec
from alidade_operator.resources.engines.choice import engine_of, engine_pod
from alidade_operator.resources.engines.server import AdapterPlace, ServedModel, Server, loads_while_running
from tests.operator.builders import CONFIG, UID

CPU_POOL, GPU_POOL = CONFIG.node_pools
FOLDER = {"uri": "pvc://data/model"}
LIMITS = {"maxInputTokens": 100, "maxTotalTokens": 300, "maxConcurrentRequests": 700}
ADAPTERS = (
    AdapterPlace("law", "pvc://data/law/adapter", rank=12),
    AdapterPlace("tax", "pvc://other/tax/adapter", rank=4),
)

# `vllm serve --help=all` of 0.32.0, as far as it is used.
VLLM_FLAGS = {
    "--served-model-name", "--host", "--port", "--tensor-parallel-size", "--max-model-len", "--max-num-seqs",
    "--max-num-queued-reqs", "--shutdown-timeout", "--disable-access-log-for-endpoints", "--revision", "--enable-lora",
    "--max-lora-rank", "--max-loras", "--max-cpu-loras", "--lora-modules", "--api-key",
}  # fmt: skip
# "Text-generation-launcher arguments" in text-generation-inference's documentation, 3.3.
TGI_FLAGS = {
    "--model-id", "--revision", "--num-shard", "--quantize", "--dtype", "--max-concurrent-requests",
    "--max-input-tokens", "--max-total-tokens", "--hostname", "--port", "--json-output", "--lora-adapters",
    "--usage-stats",
}  # fmt: skip


def server(engine: str, *, model: str = "pvc://data/model", **fields: Any) -> Server:
    """A server of a spec as in YAML, on two GPUs where it computes on GPUs."""
    compute = {} if engine == "embedded" else {"nodePool": GPU_POOL.name, "gpusPerWorker": 2}
    content = {"model": FOLDER, "limits": LIMITS, "compute": compute} | fields
    spec = ModelServeSpec.model_validate(content)
    pool = CPU_POOL if engine == "embedded" else GPU_POOL
    return Server("team-a", "chat", UID, spec, ServedModel(model), pool, CONFIG, engine)


def command(one: Server) -> list[str]:
    """What the server's container runs."""
    parts: list[str] = engine_pod(one).container["command"]
    return parts


def flags(one: Server) -> set[str]:
    """The names of the flags of its command."""
    return {part.partition("=")[0] for part in command(one) if part.startswith("--")}


# Which engine


@pytest.mark.parametrize(
    ("fields", "pool", "engine"),
    [
        ({}, CPU_POOL, "embedded"),
        ({}, None, "embedded"),
        ({}, GPU_POOL, "vllm"),
        ({"engine": "tgi"}, GPU_POOL, "tgi"),
        ({"engine": "embedded"}, GPU_POOL, "embedded"),
        ({"quantization": {"method": "gguf", "type": "q4_k_m"}}, GPU_POOL, "embedded"),
        ({"quantization": {"method": "int8"}}, GPU_POOL, "embedded"),
        ({"quantization": {"method": "fp8"}}, GPU_POOL, "vllm"),
        ({"quantization": {"method": "nf4"}}, GPU_POOL, "tgi"),
    ],
)
def test_auto_picks_by_format_and_pool_and_a_name_is_taken_as_it_is(
    fields: dict[str, Any], pool: Any, engine: str
) -> None:
    assert engine_of(ModelServeSpec.model_validate({"model": FOLDER} | fields), pool) == engine


# What they are told


@pytest.mark.parametrize("model", ["pvc://data/model", "hf://org/name@v2"])
@pytest.mark.parametrize("method", ["none", "nf4"])
def test_every_flag_of_text_generation_inference_is_one_that_it_documents(model: str, method: str) -> None:
    one = replace(server("tgi", model=model, quantization={"method": method}), adapters=ADAPTERS)
    assert flags(one) <= TGI_FLAGS


@pytest.mark.parametrize("model", ["pvc://data/model", "hf://org/name@v2"])
def test_every_flag_of_vllm_is_one_that_it_knows(model: str) -> None:
    assert flags(replace(server("vllm", model=model), adapters=ADAPTERS)) <= VLLM_FLAGS


def test_vllm_is_told_model_name_limits_and_how_many_gpus() -> None:
    told = command(server("vllm"))
    assert told[:3] == ["vllm", "serve", "/volumes/data/model"]
    assert {
        "--served-model-name=chat", "--host=$(POD_IP)", "--port=8080", "--tensor-parallel-size=2",
        "--max-model-len=300", "--max-num-seqs=256", "--max-num-queued-reqs=700",
    } <= set(told)  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "prompt", "total"),
    [({}, 1024, 2048), ({"maxTotalTokens": 512}, 256, 512), ({"maxInputTokens": 2000}, 2000, 2048)],
)
def test_limits_that_are_not_set_have_defaults_that_go_together(
    limits: dict[str, int], prompt: int, total: int
) -> None:
    assert f"--max-model-len={total}" in command(server("vllm", limits=limits))
    tgi = set(command(server("tgi", limits=limits)))
    assert {f"--max-input-tokens={prompt}", f"--max-total-tokens={total}"} <= tgi


def test_text_generation_inference_is_told_model_limits_and_how_many_gpus() -> None:
    told = command(server("tgi"))
    assert told[0] == "text-generation-launcher"
    assert {
        "--model-id=/volumes/data/model", "--hostname=$(POD_IP)", "--port=8080", "--num-shard=2",
        "--max-input-tokens=100", "--max-total-tokens=300", "--max-concurrent-requests=700", "--dtype=bfloat16",
    } <= set(told)  # fmt: skip


@pytest.mark.parametrize(("engine", "flag"), [("vllm", "org/name"), ("tgi", "--model-id=org/name")])
def test_a_model_of_the_hub_is_named_with_its_revision_and_may_be_fetched(engine: str, flag: str) -> None:
    hub, volume = (engine_pod(server(engine, model=uri)).container for uri in ("hf://org/name@v2", "pvc://data/model"))
    assert flag in hub["command"]
    assert "--revision=v2" in hub["command"]
    offline = {"name": "HF_HUB_OFFLINE", "value": "1"}
    assert offline not in hub["env"]
    assert offline in volume["env"], "nobody is asked for what lies on a volume"


@pytest.mark.parametrize(
    ("method", "present", "absent"),
    [
        ("none", "--dtype=bfloat16", "--quantize=bitsandbytes-nf4"),
        ("nf4", "--quantize=bitsandbytes-nf4", "--dtype=bfloat16"),
    ],
)
def test_text_generation_inference_takes_either_a_number_format_or_a_quantization(
    method: str, present: str, absent: str
) -> None:
    told = command(server("tgi", quantization={"method": method}))
    assert present in told
    assert absent not in told


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
@pytest.mark.parametrize("engine", ["vllm", "tgi"])
def test_how_a_written_folder_is_quantized_is_left_to_its_config(engine: str, method: str) -> None:
    assert not flags(server(engine, quantization={"method": method})) & {"--quantize", "--quantization", "--dtype"}


def test_the_real_vllm_parses_what_it_is_told() -> None:
    reason = "vllm is not installed; docs/how-to/serve-on-gpus.md says how to run this"
    arguments = pytest.importorskip("vllm.entrypoints.launchers.cli_args", reason=reason)
    parsers = pytest.importorskip("vllm.utils.argparse_utils", reason=reason)
    parser = arguments.make_arg_parser(parsers.FlexibleArgumentParser())
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert known >= VLLM_FLAGS
    told = command(replace(server("vllm", model="hf://org/name@v2"), adapters=ADAPTERS))
    parsed = parser.parse_args([*told[2:], "--api-key", "one", "two"])
    assert (parsed.model_tag, parsed.revision, parsed.served_model_name) == ("org/name", "v2", ["chat"])
    assert (parsed.tensor_parallel_size, parsed.max_model_len, parsed.max_num_queued_reqs) == (2, 300, 700)
    assert [(one.name, one.path) for one in parsed.lora_modules] == [
        ("law", "/volumes/data/law/adapter"),
        ("tax", "/volumes/other/tax/adapter"),
    ]
    assert parsed.api_key == ["one", "two"]
    assert (parsed.shutdown_timeout, parsed.max_lora_rank) == (50, 16)


# Their pods


@pytest.mark.parametrize("engine", ["vllm", "tgi"])
def test_a_server_on_gpus_has_its_gpus_shared_memory_and_nothing_to_write_to_but_scratch(engine: str) -> None:
    pod = engine_pod(server(engine))
    assert pod.container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in pod.volumes
    assert pod.container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = {mount["mountPath"] for mount in pod.container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/scratch", "/tmp", "/dev/shm"}
    told = {item["name"]: item.get("value", "") for item in pod.container["env"]}
    assert told["HOME"] == "/scratch"
    assert told["NCCL_DEBUG"] == "WARN", "the pool's environment"


@pytest.mark.parametrize("engine", ["vllm", "tgi"])
def test_a_server_on_gpus_is_given_time_to_load_and_to_end(engine: str) -> None:
    pod = engine_pod(server(engine))
    start = pod.container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] == 1800
    (_, notice) = pod.container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod.grace_s > int(notice) + 50, "the pause, and then the answers that were begun"


def test_an_image_of_ones_own_is_taken() -> None:
    compute = {"nodePool": GPU_POOL.name, "gpusPerWorker": 1, "image": "mine:1"}
    assert engine_pod(server("vllm", compute=compute)).container["image"] == "mine:1"
    assert engine_pod(server("vllm")).container["image"] == CONFIG.vllm_image
    assert engine_pod(server("tgi")).container["image"] == CONFIG.tgi_image


# Adapters


def test_each_engine_is_told_its_adapters_in_its_own_way() -> None:
    law, tax = "law=/volumes/data/law/adapter", "tax=/volumes/other/tax/adapter"
    embedded, vllm, tgi = (command(replace(server(one), adapters=ADAPTERS)) for one in ("embedded", "vllm", "tgi"))
    assert f"--adapters={law},{tax}" in embedded
    assert vllm[-3:] == ["--lora-modules", law, tax]
    assert {"--enable-lora", "--max-lora-rank=16", "--max-loras=2", "--max-cpu-loras=2"} <= set(vllm)
    assert f"--lora-adapters={law},{tax}" in tgi


def test_the_embedded_server_reads_its_adapters_from_its_flags() -> None:
    from alidade_serving.settings import read_settings

    settings = read_settings(command(replace(server("embedded"), adapters=ADAPTERS))[1:], {})
    assert settings.adapters["tax"] == Path("/volumes/other/tax/adapter")


@pytest.mark.parametrize(("rank", "room"), [(None, 64), (1, 8), (8, 8), (9, 16), (512, 512)])
def test_vllm_makes_room_for_the_next_rank_that_it_knows(rank: int | None, room: int) -> None:
    one = AdapterPlace("law", "pvc://data/law", rank=rank)
    assert f"--max-lora-rank={room}" in command(replace(server("vllm"), adapters=(one,)))


def test_every_volume_is_mounted_once_and_read_only() -> None:
    pod = engine_pod(replace(server("vllm"), adapters=ADAPTERS))
    claims = {
        one["name"]: one["persistentVolumeClaim"]["claimName"] for one in pod.volumes if "persistentVolumeClaim" in one
    }
    assert claims == {"model": "data", "adapters-1": "other"}
    mounts = {one["name"]: one for one in pod.container["volumeMounts"]}
    assert mounts["adapters-1"] == {"name": "adapters-1", "mountPath": "/volumes/other", "readOnly": True}


# Adapters that come and go


RUNTIME = CONFIG.model_copy(update={"runtime_adapters": True})


def loading(*adapters: AdapterPlace, **fields: Any) -> Server:
    """A server that loads adapters while it runs."""
    return replace(server("vllm", **fields), config=RUNTIME, adapters=adapters)


def test_a_pod_that_loads_adapters_while_it_runs_is_the_same_whichever_they_are() -> None:
    more = AdapterPlace("more", "pvc://other/more/adapter", rank=16)
    one, other = engine_pod(loading(*ADAPTERS)), engine_pod(loading(*ADAPTERS, more))
    assert one == other
    assert {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "true"} in one.container["env"]
    assert {"name": "adapters", "configMap": {"name": "chat-adapters"}} in one.volumes
    assert {"--max-loras=8", "--max-cpu-loras=64"} <= set(one.container["command"])


def test_it_changes_for_a_volume_or_a_rank_that_it_has_no_room_for() -> None:
    first = engine_pod(loading(ADAPTERS[0]))
    assert engine_pod(loading(*ADAPTERS)) != first, "on another volume"
    assert engine_pod(loading(ADAPTERS[0], AdapterPlace("wide", "pvc://data/wide", rank=100))) != first


@pytest.mark.parametrize(
    "one",
    [
        loading(),
        loading(*ADAPTERS, auth={"secretName": "keys"}),
        replace(loading(*ADAPTERS), engine="tgi"),
        replace(loading(*ADAPTERS), config=CONFIG),
    ],
    ids=["no adapters", "keys", "another engine", "not allowed"],
)
def test_nobody_else_is_let_load_adapters(one: Server) -> None:
    assert not loads_while_running(one)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in {item["name"] for item in engine_pod(one).container["env"]}


@pytest.mark.parametrize(
    ("text", "told"), [("law=/a\ntax=/b\n", "'--lora-modules', 'law=/a', 'tax=/b'"), ("", "'--max-cpu-loras=64'")]
)
def test_a_new_replica_has_the_adapters_of_its_list_from_the_start(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    ended = played(loading(*ADAPTERS), {}, tmp_path, {"/etc/alidade/adapters": str(tmp_path)})
    assert ended.stdout.endswith(f"{told}] None\n"), ended.stderr


# Keys


def played(
    one: Server, keys: dict[str, str], tmp_path: Path, folders: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the container's command with a Secret of those files. A script that prints what it got plays the server."""
    folder, programs = tmp_path / "keys", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name, text in keys.items():
        (folder / name).write_text(text)
    for name in ("vllm", "text-generation-launcher"):
        path = programs / name
        path.write_text(f"#!{sys.executable}\nimport os, sys\nprint(sys.argv[1:], os.environ.get('API_KEY'))\n")
        path.chmod(0o755)
    told = command(one)
    for path, place in ({"/etc/alidade/keys": str(folder)} | (folders or {})).items():
        told = [part.replace(path, place) for part in told]
    environment = {"PATH": f"{programs}{os.pathsep}{os.defpath}"}
    return subprocess.run(told, capture_output=True, text=True, env=environment, check=False)


def test_every_line_of_the_secret_is_a_key_of_vllm(tmp_path: Path) -> None:
    one = server("vllm", auth={"secretName": "keys"})
    ended = played(one, {"a": "one\ntwo words\n\n", "b": "three"}, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("['serve', '/volumes/data/model', ")
    assert ended.stdout.endswith("'--api-key', 'one', 'two words', 'three'] None\n")


@pytest.mark.parametrize("keys", [{"a": ""}, {"a": "\n \n"}])
@pytest.mark.parametrize("engine", ["vllm", "tgi"])
def test_a_secret_without_a_key_lets_nobody_in_rather_than_everybody(
    engine: str, keys: dict[str, str], tmp_path: Path
) -> None:
    ended = played(server(engine, auth={"secretName": "keys"}), keys, tmp_path)
    assert ended.returncode == 1
    assert "The Secret of spec.auth holds no key" in ended.stderr or "the Secret of spec.auth holds 0" in ended.stderr
    assert ended.stdout == ""


def test_text_generation_inference_gets_its_one_key_by_the_environment(tmp_path: Path) -> None:
    ended = played(server("tgi", auth={"secretName": "keys"}), {"a": "one\n"}, tmp_path)
    assert ended.stdout.endswith("] one\n"), ended.stderr
    assert "'one'" not in ended.stdout, "not among its arguments"


def test_more_than_one_key_for_text_generation_inference_is_said(tmp_path: Path) -> None:
    ended = played(server("tgi", auth={"secretName": "keys"}), {"a": "one", "b": "two"}, tmp_path)
    assert ended.returncode == 1
    assert "takes one key, and the Secret of spec.auth holds 2; leave one" in ended.stderr
