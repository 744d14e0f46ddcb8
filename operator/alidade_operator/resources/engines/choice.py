"""Which engine serves, and its pod."""

from collections.abc import Callable

from alidade_crds.modelserve import ModelServeSpec, QuantizationMethod
from alidade_operator.config import NodePool
from alidade_operator.resources.engines.embedded import embedded_pod
from alidade_operator.resources.engines.server import EMBEDDED, TGI, VLLM, EnginePod, Server
from alidade_operator.resources.engines.tgi import tgi_pod
from alidade_operator.resources.engines.vllm import vllm_pod

_PODS: dict[str, Callable[[Server], EnginePod]] = {EMBEDDED: embedded_pod, VLLM: vllm_pod, TGI: tgi_pod}


def engine_pod(server: Server) -> EnginePod:
    """The pod of the server's engine."""
    return _PODS[server.engine](server)


def engine_of(spec: ModelServeSpec, pool: NodePool | None) -> str:
    """The engine that a spec means.

    auto: the embedded server for GGUF files and on pools without GPUs, vLLM on others: it is developed, while
    text-generation-inference has only been maintained since December 2025. NF4 alone is left to the latter, since vLLM
    0.32 has no bitsandbytes.
    """
    if spec.engine != "auto":
        return spec.engine
    if pool is None or not pool.gpus_per_node or spec.quantization.gguf_type is not None:
        return EMBEDDED
    return TGI if spec.quantization.method is QuantizationMethod.NF4 else VLLM
