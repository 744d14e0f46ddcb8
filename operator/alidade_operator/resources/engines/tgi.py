"""The pod of text-generation-inference. Flags: those of version 3.3."""

from alidade_crds import contract
from alidade_crds.modelserve import QuantizationMethod
from alidade_operator.resources.engines.gpu import Program, gpu_pod, model_flags, token_limits
from alidade_operator.resources.engines.server import KEYS_FOLDER, SERVER_PORT, EnginePod, Server, adapter_paths

# It takes one key, and by its environment, so that it stands in no list of processes.
_KEYS = (
    f'count=0; for file in {KEYS_FOLDER}/*; do while read -r key || [ -n "$key" ]; do '
    'if [ -n "$key" ]; then API_KEY="$key"; count=$((count + 1)); fi; done < "$file"; done; '
    'if [ "$count" -ne 1 ]; then '
    'echo "text-generation-inference takes one key, and the Secret of spec.auth holds $count; leave one." >&2; '
    'exit 1; fi; export API_KEY; exec "$@"'
)


def tgi_pod(server: Server) -> EnginePod:
    """The pod of `text-generation-launcher`."""
    return gpu_pod(
        server,
        Program(
            image=server.config.tgi_image,
            command=("text-generation-launcher",),
            flags=tgi_flags(server),
            env={},
            script=_KEYS if server.spec.auth is not None else "",
        ),
    )


def tgi_flags(server: Server) -> list[str]:
    """Arguments of `text-generation-launcher`."""
    limits = server.spec.limits
    longest_prompt, longest = token_limits(server)
    model, revision = model_flags(server)
    flags = [
        f"--model-id={model}",
        f"--hostname=$({contract.POD_IP_ENV})",
        f"--port={SERVER_PORT}",
        f"--num-shard={server.spec.compute.gpus_per_worker}",
        f"--max-concurrent-requests={limits.max_concurrent_requests}",
        f"--max-input-tokens={longest_prompt}",
        f"--max-total-tokens={longest}",
        "--json-output",
        "--usage-stats=off",
    ]
    if server.spec.quantization.method is QuantizationMethod.NONE:
        # Otherwise it is float16, beyond whose range models trained in bfloat16 may get.
        flags.append("--dtype=bfloat16")
    if server.spec.quantization.method is QuantizationMethod.NF4:
        # Done while it loads; of what the other methods write, the model's config.json tells.
        flags.append("--quantize=bitsandbytes-nf4")
    if revision is not None:
        flags.append(f"--revision={revision}")
    return flags + ([f"--lora-adapters={','.join(adapter_paths(server))}"] if server.adapters else [])
