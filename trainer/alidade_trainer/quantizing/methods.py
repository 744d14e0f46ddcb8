"""Methods by the name that a spec gives them."""

from alidade_crds.contract import QuantizationDocument
from alidade_crds.modelserve import CPU_TYPES, QuantizationMethod
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure
from alidade_trainer.quantizing.gguf_file import GgufFile
from alidade_trainer.quantizing.method import Quantizer


def method_of(document: QuantizationDocument) -> Quantizer:
    """The method that a document asks for; raises JobFailure ConfigInvalid for one that there is not."""
    name = document.method
    if name == QuantizationMethod.GGUF or name in CPU_TYPES:
        if document.type is None:
            raise JobFailure(FailureReason.CONFIG_INVALID, f"spec.quantization.method is {name}, and no type is given.")
        return GgufFile(document.type)
    # Imported only where it is asked for: these modules import libraries that the ordinary image lacks.
    if name in (QuantizationMethod.GPTQ, QuantizationMethod.AWQ, QuantizationMethod.FP8):
        from alidade_trainer.quantizing.compressed import CompressedFolder

        return CompressedFolder(QuantizationMethod(name))
    if name == QuantizationMethod.NF4:
        from alidade_trainer.quantizing.normal_float import NormalFloatFolder

        return NormalFloatFolder()
    raise JobFailure(
        FailureReason.CONFIG_INVALID,
        f"spec.quantization.method is {name!r}; write one of gguf, int8, int4, gptq, awq, fp8, nf4.",
    )
