"""The pod of vLLM's OpenAI server. Flags: those of version 0.32."""

from alidade_crds import contract
from alidade_operator.resources.engines.gpu import DRAIN_TIMEOUT_S, Program, gpu_pod, model_flags
from alidade_operator.resources.engines.server import SERVER_PORT, EnginePod, Server, adapter_paths

# Sequences that are generated at once, vLLM's own default on most GPUs; the others wait.
_MOST_SEQUENCES = 256
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for."""
_UNKNOWN_RANK = 64
# Adapters that a batch may mix; each takes GPU memory, whether it is asked for or not.
_MOST_LORAS_AT_ONCE = 8
# Every line is a key, as for the embedded server; the flag takes any number of them. Without any vLLM would let all in.
_KEYS = (
    'set -- "$@" --api-key; count=0; for file in KEYS_FOLDER/*; do while read -r key || [ -n "$key" ]; do '
    'if [ -n "$key" ]; then set -- "$@" "$key"; count=$((count + 1)); fi; done < "$file"; done; '
    'if [ "$count" -eq 0 ]; then echo "The Secret of spec.auth holds no key; write one a line." >&2; exit 1; fi; '
    'exec "$@"'
)


def vllm_pod(server: Server) -> EnginePod:
    """The pod of `vllm serve`."""
    return gpu_pod(
        server,
        Program(
            image=server.config.vllm_image,
            command=("vllm", "serve"),
            flags=vllm_flags(server),
            env={"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
            keys=_KEYS,
        ),
    )


def vllm_flags(server: Server) -> list[str]:
    """Arguments of `vllm serve`. Number format and quantization are as the model's config.json says."""
    limits = server.spec.limits
    model, revision = model_flags(server)
    flags = [
        model,
        f"--served-model-name={server.name}",
        f"--host=$({contract.POD_IP_ENV})",
        f"--port={SERVER_PORT}",
        f"--tensor-parallel-size={server.spec.compute.gpus_per_worker}",
        f"--max-model-len={limits.max_total_tokens}",
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
    return [
        "--enable-lora",
        f"--max-lora-rank={next(size for size in LORA_RANKS if size >= rank)}",
        f"--max-loras={min(_MOST_LORAS_AT_ONCE, len(server.adapters))}",
        f"--max-cpu-loras={len(server.adapters)}",
        "--lora-modules",
        *adapter_paths(server),
    ]
