"""NVIDIA ModelOpt in its four weight formats."""

from __future__ import annotations

from core.backends.base import AttentionKind, Backend
from core.backends.kv_method import BaseKVCacheMethod, KVMethod
from core.quantization.declaration import Declaration
from core.quantization.modelopt import modelopt_kv_algorithm


class ModelOpt(Backend):
    """The one family that gives MLA layers scale parameters as well."""

    method = "modelopt"
    config_class = "ModelOptFp8Config"
    title = "ModelOpt FP8"
    source = "vLLM 0.33.0, layers/quantization/modelopt.py, ModelOptQuantConfigBase"

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        return BaseKVCacheMethod("ModelOptKVCacheMethod")


class ModelOptFp4(ModelOpt):
    """NVFP4 weights; the same scales."""

    method = "modelopt_fp4"
    config_class = "ModelOptNvFp4Config"
    title = "ModelOpt NVFP4"


class ModelOptMxFp8(ModelOpt):
    """MXFP8 weights; the same scales."""

    method = "modelopt_mxfp8"
    config_class = "ModelOptMxFp8Config"
    title = "ModelOpt MXFP8"


class MxFp8(ModelOptMxFp8):
    """The name MiniMax-style checkpoints declare."""

    method = "mxfp8"
    title = "MXFP8 (read by ModelOpt's config)"


class ModelOptMixed(ModelOpt):
    """A format for each layer: scales only on Attention, and only where the cache is declared quantized."""

    method = "modelopt_mixed"
    config_class = "ModelOptMixedPrecisionConfig"
    title = "ModelOpt mixed precision"
    source = "vLLM 0.33.0, layers/quantization/modelopt.py, ModelOptMixedPrecisionConfig"

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        if kind != "Attention" or modelopt_kv_algorithm(declared) is None:
            return None
        return super().kv_method(kind, path, declared)


BACKENDS = (ModelOpt(), ModelOptFp4(), ModelOptMxFp8(), MxFp8(), ModelOptMixed())
