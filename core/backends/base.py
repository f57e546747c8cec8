"""``Backend``: one quantization method of the engine, as far as KV-cache scales go."""

from __future__ import annotations

from typing import Literal

from core.backends.kv_method import KVMethod
from core.naming.mapper import RuleKind, WeightsMapper, rules
from core.quantization.declaration import Declaration

AttentionKind = Literal["Attention", "MLAAttention"]

BASE_SOURCE = "vLLM 0.33.0, layers/quantization/base_config.py, QuantizationConfig.get_cache_scale_mapper"

BASE_CACHE_SCALE_MAPPER = WeightsMapper(
    rules(
        RuleKind.REGEX,
        (
            # one scale for both (deprecated): it becomes k, and the KV method copies it to v
            (r"\.kv_scale$", r".attn.k_scale"),
            # ModelOpt
            (r"\.self_attn\.[kv]_proj\.([kv])_scale$", r".self_attn.attn.\1_scale"),
            # fused projections, with an artefact seen in Qwen3-MoE checkpoints
            (r"\.self_attn\.qk(?:qk)?v_proj\.([kv])_scale$", r".self_attn.attn.\1_scale"),
            # NemotronH
            (r"\.mixer\.[kv]_proj\.([kv])_scale$", r".mixer.attn.\1_scale"),
            # HYV3
            (r"\.self_attn\.q\.scale$", r".self_attn.attn.q_scale"),
            (r"\.self_attn\.([kv])_cache\.scale$", r".self_attn.attn.\1_scale"),
            # everything else that is not there yet
            (r"(?<!\.attn)\.([qkv])_scale$", r".attn.\1_scale"),
            (r"(?<!\.attn)\.([qkv])_zero_point$", r".attn.\1_zero_point"),
        ),
        source=BASE_SOURCE,
    )
)

CHECKPOINT_WEIGHT_MAPPER = WeightsMapper(
    rules(
        RuleKind.SUFFIX,
        ((".g_idx", None),),
        source="vLLM 0.33.0, layers/quantization/base_config.py, get_checkpoint_weight_mapper",
    )
)

IGNORED_SUFFIXES = (".q_scale", ".k_scale", ".v_scale", ".q_zero_point", ".k_zero_point", ".v_zero_point")
"""Names a quantization config lets a loader skip when nothing takes them (vLLM 0.33.0, _ignore_unexpected_suffixes)."""


def output_scale_mapper(source: str) -> WeightsMapper:
    """The rules for scales stored as output scales of the projections (Quark, early compressed-tensors)."""
    return WeightsMapper(
        rules(
            RuleKind.SUFFIX,
            (
                (".k_proj.output_scale", ".attn.k_scale"),
                (".v_proj.output_scale", ".attn.v_scale"),
                (".q_proj.output_scale", ".attn.q_scale"),
                (".self_attn.prob_output_scale", ".self_attn.attn.prob_scale"),
            ),
            source=source,
        )
    )


class Backend:
    """A quantization method. Subclass it, name the method, register it: that is a whole new backend.

    The defaults are those of vLLM's base class: its mapper, and no KV method (scales are ignored, layers run at 1.0).
    """

    method: str = ""
    config_class: str = "QuantizationConfig"
    title: str = ""
    source: str = BASE_SOURCE
    ignored_suffixes: tuple[str, ...] = IGNORED_SUFFIXES

    def get_cache_scale_mapper(self) -> WeightsMapper:
        """The rules that turn checkpoint names of scales into parameter names."""
        return BASE_CACHE_SCALE_MAPPER

    def get_checkpoint_weight_mapper(self) -> WeightsMapper:
        """Rules for other tensors of this method that the engine drops."""
        return CHECKPOINT_WEIGHT_MAPPER

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        """The KV method this backend gives the attention layer at ``path``, or None when it creates no scales."""
        return None
