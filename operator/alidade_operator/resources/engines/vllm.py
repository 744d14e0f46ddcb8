"""The pod of vLLM's OpenAI server. Flags: those of version 0.32."""

from alidade_crds import contract
from alidade_operator.resources.engines.gpu import DRAIN_TIMEOUT_S, Program, gpu_pod, model_flags, token_limits
from alidade_operator.resources.engines.server import (
    ADAPTERS_FILE,
    ADAPTERS_FOLDER,
    KEYS_FOLDER,
    SERVER_PORT,
    EnginePod,
    Server,
    adapter_paths,
    loads_while_running,
)

# Sequences that are generated at once, vLLM's own default on most GPUs; the others wait.
_MOST_SEQUENCES = 256
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for."""
_UNKNOWN_RANK = 64
# Adapters that a batch may mix; each takes GPU memory, whether it is asked for or not.
_MOST_LORAS_AT_ONCE = 8
# As many as a spec may name: a server that loads them while it runs has to have room from the start.
_MOST_LORAS = 64
# Every line is a key, as for the embedded server; the flag takes any number of them. Without any vLLM would let all in.
_KEYS = (
    f'set -- "$@" --api-key; count=0; for file in {KEYS_FOLDER}/*; do while read -r key || [ -n "$key" ]; do '
    'if [ -n "$key" ]; then set -- "$@" "$key"; count=$((count + 1)); fi; done < "$file"; done; '
    'if [ "$count" -eq 0 ]; then echo "The Secret of spec.auth holds no key; write one a line." >&2; exit 1; fi; '
    'exec "$@"'
)
# Read at the start, so that a new replica has them before it is asked; later the operator loads what comes and goes.
_LIST = f"{ADAPTERS_FOLDER}/{ADAPTERS_FILE}"
_ADAPTERS = (
    f'if [ -s {_LIST} ]; then set -- "$@" --lora-modules; '
    f'while read -r one; do set -- "$@" "$one"; done < {_LIST}; fi; exec "$@"'
)


def vllm_pod(server: Server) -> EnginePod:
    """The pod of `vllm serve`."""
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    script = _KEYS if server.spec.auth is not None else ""
    if loads_while_running(server):
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "true"
        script = _ADAPTERS
    return gpu_pod(server, Program(server.config.vllm_image, ("vllm", "serve"), vllm_flags(server), env, script))


def vllm_flags(server: Server) -> list[str]:
    """Arguments of `vllm serve`. Number format and quantization are as the model's config.json says."""
    limits = server.spec.limits
    _, longest = token_limits(server)
    model, revision = model_flags(server)
    flags = [
        model,
        f"--served-model-name={server.name}",
        f"--host=$({contract.POD_IP_ENV})",
        f"--port={SERVER_PORT}",
        f"--tensor-parallel-size={server.spec.compute.gpus_per_worker}",
        f"--max-model-len={longest}",
        f"--max-num-seqs={min(_MOST_SEQUENCES, limits.max_concurrent_requests)}",
        f"--max-num-queued-reqs={limits.max_concurrent_requests}",
        f"--shutdown-timeout={DRAIN_TIMEOUT_S}",
        "--disable-access-log-for-endpoints=/health,/metrics",
    ]
    if revision is not None:
        flags.append(f"--revision={revision}")
    return flags + (_adapter_flags(server) if server.adapters else [])


def _adapter_flags(server: Server) -> list[str]:
    rank = max(one.rank or _UNKNOWN_RANK for one in server.adapters)
    room = ["--enable-lora", f"--max-lora-rank={next(size for size in LORA_RANKS if size >= rank)}"]
    if loads_while_running(server):
        # None of it says how many there are now: a flag that changes replaces every replica.
        return [*room, f"--max-loras={_MOST_LORAS_AT_ONCE}", f"--max-cpu-loras={_MOST_LORAS}"]
    return [
        *room,
        f"--max-loras={min(_MOST_LORAS_AT_ONCE, len(server.adapters))}",
        f"--max-cpu-loras={len(server.adapters)}",
        "--lora-modules",
        *adapter_paths(server),
    ]
