"""The quantization backends as vLLM had them before 0.33: the same methods, with fewer renaming rules of their own.

Source: vLLM 0.27.1, 0.25.0, 0.23.0 and 0.22.1, layers/quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from core.backends import BACKENDS
from core.backends.base import AttentionKind, Backend, output_scale_mapper
from core.backends.kv_method import BaseKVCacheMethod, KVMethod
from core.backends.weight_only import WeightOnly
from core.naming.mapper import WeightsMapper
from core.quantization.declaration import Declaration

NOTHING = WeightsMapper()
OUTPUT_SCALES = ("fp8", "deepseek_v4_fp8", "quark")
"""The methods that know scales stored as output scales of the projections, in every version."""

_OLD_METHODS = (
    ("bitsandbytes", "BitsAndBytesConfig", "bitsandbytes", "bitsandbytes.py"),
    ("gguf", "GGUFConfig", "GGUF", "gguf.py"),
    ("cpu_awq", "CPUAWQConfig", "AWQ on CPUs", "cpu_wna16.py"),
)


class OlderBackend(Backend):
    """A backend of vLLM 0.33.0 with what an older version has in place of its rules."""

    def __init__(
        self,
        base: Backend,
        *,
        mapper: WeightsMapper,
        ignored_suffixes: tuple[str, ...] = (),
        plain_parameters: bool = False,
    ) -> None:
        self._base = base
        self._mapper = mapper
        self._plain_parameters = plain_parameters
        self.method = base.method
        self.config_class = base.config_class
        self.title = base.title
        self.source = base.source
        self.ignored_suffixes = ignored_suffixes

    def get_cache_scale_mapper(self) -> WeightsMapper:
        return self._mapper

    def get_checkpoint_weight_mapper(self) -> WeightsMapper:
        return NOTHING

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        method = self._base.kv_method(kind, path, declared)
        if self._plain_parameters and isinstance(method, BaseKVCacheMethod):
            return BaseKVCacheMethod(method.name, plain_parameters=True)
        return method


def _since_0_25(base: Backend) -> OlderBackend:
    """All of 0.33's rules for scales, but none for other tensors (``g_idx``)."""
    return OlderBackend(base, mapper=base.get_cache_scale_mapper(), ignored_suffixes=base.ignored_suffixes)


def _since_0_23(base: Backend) -> OlderBackend:
    """Only the output-scale rules, of three methods; no name is ignored."""
    source = "vLLM 0.23.0, layers/quantization/fp8.py and quark/quark.py, get_cache_scale_mapper"
    return OlderBackend(base, mapper=output_scale_mapper(source) if base.method in OUTPUT_SCALES else NOTHING)


def _before_0_23(base: Backend) -> OlderBackend:
    """No rules at all: models ask ``get_cache_scale``; and scales are plain parameters without a loader."""
    return OlderBackend(base, mapper=NOTHING, plain_parameters=True)


def _of(methods: Iterable[str], older: Callable[[Backend], OlderBackend]) -> Mapping[str, Backend]:
    known = {**BACKENDS, **{row[0]: WeightOnly(*row) for row in _OLD_METHODS}}
    return MappingProxyType({method: older(known[method]) for method in methods})


_COMMON = (
    "awq", "fp8", "fbgemm_fp8", "fp_quant", "modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed", "auto_gptq",
    "gptq", "gptq_marlin", "awq_marlin", "humming", "compressed-tensors", "bitsandbytes", "experts_int8", "quark",
    "moe_wna16", "torchao", "inc", "mxfp4", "gpt_oss_mxfp4", "deepseek_v4_fp8", "online", "fp8_per_tensor",
    "fp8_per_block", "int8_per_channel_weight_only", "mxfp8",
)  # fmt: skip

BACKENDS_0_22: Mapping[str, Backend] = _of((*_COMMON, "gguf", "cpu_awq"), _before_0_23)
"""Every quantization method of vLLM 0.22.1, by name."""

BACKENDS_0_23: Mapping[str, Backend] = _of((*_COMMON, "gguf"), _since_0_23)
"""Every quantization method of vLLM 0.23.0, by name."""

BACKENDS_0_25: Mapping[str, Backend] = _of((*_COMMON, "auto_awq", "fp8_per_channel"), _since_0_25)
"""Every quantization method of vLLM 0.25.0, by name."""

BACKENDS_0_27: Mapping[str, Backend] = _of((*_COMMON, "auto_awq", "fp8_per_channel", "nvfp4_per_token"), _since_0_25)
"""Every quantization method of vLLM 0.27.1, by name."""
