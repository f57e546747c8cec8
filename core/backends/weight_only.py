"""Methods that quantize weights alone: the base mapper renames the scales, but no attention layer takes them."""

from __future__ import annotations

from core.backends.base import Backend

_METHODS = (
    ("awq", "AutoAWQConfig", "AWQ", "auto_awq.py"),
    ("auto_awq", "AutoAWQConfig", "AWQ", "auto_awq.py"),
    ("awq_marlin", "AutoAWQConfig", "AWQ (Marlin)", "auto_awq.py"),
    ("gptq", "AutoGPTQConfig", "GPTQ", "auto_gptq.py"),
    ("auto_gptq", "AutoGPTQConfig", "GPTQ", "auto_gptq.py"),
    ("gptq_marlin", "AutoGPTQConfig", "GPTQ (Marlin)", "auto_gptq.py"),
    ("fbgemm_fp8", "FBGEMMFp8Config", "FBGEMM FP8", "fbgemm_fp8.py"),
    ("fp_quant", "FPQuantConfig", "FP-Quant", "fp_quant.py"),
    ("humming", "HummingConfig", "Humming", "humming.py"),
    ("experts_int8", "ExpertsInt8Config", "INT8 experts", "experts_int8.py"),
    ("moe_wna16", "MoeWNA16Config", "MoE WNA16", "moe_wna16.py"),
    ("torchao", "TorchAOConfig", "torchao", "torchao.py"),
    ("inc", "INCConfig", "AutoRound native, Intel Neural Compressor", "inc/inc.py"),
    ("mxfp4", "Mxfp4Config", "MXFP4", "mxfp4.py"),
    ("gpt_oss_mxfp4", "GptOssMxfp4Config", "MXFP4 of GPT-OSS", "mxfp4.py"),
    ("online", "OnlineQuantizationConfig", "quantized while loading", "online/base.py"),
    ("fp8_per_tensor", "OnlineQuantizationConfig", "FP8 per tensor, while loading", "online/base.py"),
    ("fp8_per_block", "OnlineQuantizationConfig", "FP8 per block, while loading", "online/base.py"),
    ("fp8_per_channel", "OnlineQuantizationConfig", "FP8 per channel, while loading", "online/base.py"),
    ("int8_per_channel_weight_only", "OnlineQuantizationConfig", "INT8 per channel, while loading", "online/base.py"),
    ("nvfp4_per_token", "OnlineQuantizationConfig", "NVFP4 per token, while loading", "online/base.py"),
)


class WeightOnly(Backend):
    """A method without a KV method of its own."""

    def __init__(self, method: str, config_class: str, title: str, file: str) -> None:
        self.method = method
        self.config_class = config_class
        self.title = title
        self.source = f"vLLM 0.33.0, layers/quantization/{file}, {config_class} (no KV-cache method)"


BACKENDS = tuple(WeightOnly(*row) for row in _METHODS)
