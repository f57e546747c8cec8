"""The conventions by which KV-cache scales are named in checkpoints, and ``find_scales``.

Each convention was seen in a public checkpoint or written by the tool itself; ``source`` says which. Order matters:
the first pattern that matches a key wins, so the specific ones stand before the general ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, cast

from core.naming.scales import Kind, KVScale, Quantity, Role

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint
    from core.progress import Progress

_ATTENTION = r"(?:(?!mla_attn\.)\w*(?:attn|[aA]ttention|mixer)|(?:first|second)_sub_layer)"
"""How attention modules are called (T5: SelfAttention; Cohere ASR: first_sub_layer); MLA's own stands inside of one."""


@dataclass(frozen=True)
class Pattern:
    """One regular expression over whole keys; the groups ``module`` and ``role`` say whose scale it is."""

    regex: str
    kind: Kind = "scale"
    role: Role | None = None
    quantity: Quantity = "scale"

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        return re.compile(self.regex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How one family of tools names, shapes and declares KV-cache scales."""

    id: str
    producer: str
    keys: str
    shape: str
    declared_as: str
    source: str
    patterns: tuple[Pattern, ...]


CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        id="kv-scale",
        producer="AutoFP8, early",
        keys="kv_scale",
        shape="scalar",
        declared_as='quant_method fp8, kv_cache_scheme "static"',
        source="AutoFP8 pull request #17; vLLM #4893",
        patterns=(Pattern(r"^(?P<module>.+)\.kv_scale$", role="kv"),),
    ),
    Convention(
        id="modelopt",
        producer="ModelOpt, Hugging Face export",
        keys="k_proj.k_scale, v_proj.v_scale; affine: k_proj.k_bias, v_proj.v_bias",
        shape="[] float32 (older: [1])",
        declared_as="hf_quant_config.json quantization.kv_cache_quant_algo; config.json kv_cache_scheme",
        source="checkpoints written by ModelOpt",
        patterns=(
            Pattern(r"^(?P<module>.+)\.[kvq]_proj\.(?P<role>[kvq])_scale$"),
            Pattern(r"^(?P<module>.+)\.[kv]_proj\.(?P<role>[kv])_bias$", kind="bias", quantity="offset"),
        ),
    ),
    Convention(
        id="fused-projection",
        producer="ModelOpt and llm-compressor on fused projections",
        keys="qkv_proj.k_scale, qkqkv_proj.k_scale",
        shape="[] or [1]",
        declared_as="as the tool that wrote it",
        source="vLLM 0.33.0, base cache-scale mapper; seen in Qwen3-MoE checkpoints",
        patterns=(Pattern(r"^(?P<module>.+)\.qk(?:qk)?v_proj\.(?P<role>[kvq])_scale$"),),
    ),
    Convention(
        id="modelopt-amax",
        producer="ModelOpt, plain save_pretrained",
        keys="k_bmm_quantizer._amax",
        shape="[] bfloat16; an amax, not a scale",
        declared_as="nothing",
        source="checkpoints written by ModelOpt",
        patterns=(Pattern(r"^(?P<module>.+)\.(?P<role>[kvq])_bmm_quantizer\._amax$", quantity="amax"),),
    ),
    Convention(
        id="quark",
        producer="AMD Quark; compressed-tensors before 2024-08",
        keys="{q,k,v}_proj.output_scale, prob_output_scale; INT: output_zero_point; NVFP4: output_scale_2; "
        "MLA: kv_b_proj.output_scale",
        shape="[] in model dtype; per channel [D]",
        declared_as="export.kv_cache_group, kv_cache_quant_config, layer_quant_config.*.output_tensors",
        source="checkpoints written by Quark; compressed-tensors pull request #133",
        patterns=(
            Pattern(r"^(?P<module>.+)\.(?P<role>[kvq])_proj\.output_scale(?:_2)?$"),
            Pattern(r"^(?P<module>.+)\.(?P<role>[kvq])_proj\.output_zero_point$", kind="zero_point", quantity="offset"),
            Pattern(r"^(?P<module>.+)\.(?:kv_b_proj|qkv_proj|query_key_value)\.output_scale(?:_2)?$", role="kv"),
            Pattern(
                r"^(?P<module>.+)\.(?:kv_b_proj|qkv_proj|query_key_value)\.output_zero_point$",
                kind="zero_point",
                role="kv",
                quantity="offset",
            ),
            Pattern(r"^(?P<module>.+)\.prob_output_scale(?:_2)?$", role="prob"),
            Pattern(r"^(?P<module>.+)\.prob_output_zero_point$", kind="zero_point", role="prob", quantity="offset"),
        ),
    ),
    Convention(
        id="tensorrt-llm",
        producer="TensorRT-LLM engine checkpoints",
        keys="attention.{k,v,kv}_cache_scaling_factor (rcp: the reciprocal), {k,v}_cache_bias",
        shape="[1] float32",
        declared_as="config.json quantization.kv_cache_quant_algo",
        source="checkpoints written by ModelOpt's TensorRT-LLM export",
        patterns=(
            Pattern(r"^(?P<module>.+)\.(?P<role>kv|k|v)_cache_scaling_factor$"),
            Pattern(r"^(?P<module>.+)\.(?P<role>kv|k|v)_cache_rcp_scaling_factor$", quantity="reciprocal"),
            Pattern(r"^(?P<module>.+)\.(?P<role>kv|k|v)_cache_bias$", kind="bias", quantity="offset"),
        ),
    ),
    Convention(
        id="angelslim",
        producer="HYV3, AngelSlim",
        keys="q.scale, {k,v}_cache.scale",
        shape="[1] or [H] float32",
        declared_as='kv_cache_scheme "static", attn_quant_config.kv_cache_quant',
        source="vLLM 0.33.0, base cache-scale mapper",
        patterns=(
            Pattern(r"^(?P<module>.+)\.(?P<role>q)\.scale$"),
            Pattern(r"^(?P<module>.+)\.(?P<role>[kv])_cache\.scale$"),
        ),
    ),
    Convention(
        id="mistral-native",
        producer="Mistral native",
        keys="attention.{q,k,v,kv}_fake_quantizer.qscale_act",
        shape="scalar",
        declared_as="params.json",
        source="public Mistral checkpoints",
        patterns=(Pattern(r"^(?P<module>.+)\.(?P<role>kv|k|v|q)_fake_quantizer\.qscale_act$"),),
    ),
    Convention(
        id="ascend-c8",
        producer="Ascend C8",
        keys="{k,v}_proj.kv_cache_scale, kv_cache_offset",
        shape="per channel, INT8",
        declared_as='quant_model_description*.json kv_cache_type "C8"',
        source="public Ascend checkpoints",
        patterns=(
            Pattern(r"^(?P<module>.+)\.(?P<role>[kv])_proj\.kv_cache_scale$"),
            Pattern(r"^(?P<module>.+)\.(?P<role>[kv])_proj\.kv_cache_offset$", kind="zero_point", quantity="offset"),
        ),
    ),
    Convention(
        id="ascend-fa",
        producer="Ascend FAKQuant",
        keys="fa_{q,k,v}.scale, fa_{q,k,v}.offset",
        shape="[heads, 1]",
        declared_as="fa_quant_type",
        source="public Ascend checkpoints",
        patterns=(
            Pattern(r"^(?P<module>.+)\.fa_(?P<role>[qkv])\.scale$"),
            Pattern(r"^(?P<module>.+)\.fa_(?P<role>[qkv])\.offset$", kind="zero_point", quantity="offset"),
        ),
    ),
    Convention(
        id="nvfp4-global",
        producer="AutoRound and compressed-tensors, NVFP4 cache",
        keys="{k,v}_global_scale",
        shape="[1]",
        declared_as="kv_cache_scheme num_bits 4",
        source="checkpoints written by AutoRound",
        patterns=(Pattern(r"^(?P<module>.+)\.(?P<role>[kvq])_global_scale$"),),
    ),
    Convention(
        id="fastdeploy",
        producer="FastDeploy, ERNIE",
        keys="cachek_matmul.activation_scale, cachev_matmul.activation_scale",
        shape="[1], [H] or [H*D]; an amax, not a scale",
        declared_as="its own",
        source="public ERNIE checkpoints",
        patterns=(Pattern(r"^(?P<module>.+)\.cache(?P<role>[kv])_matmul\.activation_scale$", quantity="amax"),),
    ),
    Convention(
        id="vllm-runtime",
        producer="vLLM's own parameter names",
        keys="attn.{k,v,q,prob}_scale, mla_attn.mla_attn.{k,v}_scale",
        shape="[]",
        declared_as="any",
        source="vLLM 0.33.0, layers/attention",
        patterns=(
            Pattern(
                rf"^(?P<module>.+\.{_ATTENTION})\.(?:mla_attn\.mla_attn|mla_attn|attn)\.(?P<role>[kvq]|prob)_scale$"
            ),
            Pattern(
                rf"^(?P<module>.+\.{_ATTENTION})\.(?:mla_attn\.mla_attn|mla_attn|attn)\.(?P<role>[kvq])_zero_point$",
                kind="zero_point",
                quantity="offset",
            ),
        ),
    ),
    Convention(
        id="portable",
        producer="llm-compressor, AutoRound, AutoFP8, Quark in fp8 mode",
        keys="{k,v,q}_scale, {k,v,q}_zero_point under the attention module",
        shape="[1] in model dtype (AutoRound: float32); per head [H,1,1] or [H]",
        declared_as="kv_cache_scheme {num_bits, type, strategy, dynamic, symmetric}",
        source="checkpoints written by llm-compressor and AutoRound; AutoFP8 pull request #25",
        patterns=(
            Pattern(r"^(?P<module>.+)\.(?P<role>[kvq])_scale$"),
            Pattern(r"^(?P<module>.+)\.prob_scale$", role="prob"),
            Pattern(r"^(?P<module>.+)\.(?P<role>[kvq])_zero_point$", kind="zero_point", quantity="offset"),
        ),
    ),
)

FALSE_FRIENDS = re.compile(
    r"\.indexer\.|(?:^|\.)audio_tower\.|(?:^|\.)(?:audio|vision)_(?:model|encoder)\.|\.[kvq]_norm\."
)
"""Modules whose tensors look like KV scales and are none: sparse-attention indexers, audio towers' own key scales."""

ENDINGS = (
    ".kv_scale", ".k_scale", ".v_scale", ".q_scale", ".prob_scale", ".k_zero_point", ".v_zero_point", ".q_zero_point",
    ".k_bias", ".v_bias", "_bmm_quantizer._amax", ".output_scale", ".output_scale_2", ".output_zero_point",
    ".prob_output_scale", ".prob_output_scale_2", ".prob_output_zero_point", "_cache_scaling_factor",
    "_cache_rcp_scaling_factor", "_cache_bias", ".q.scale", "_cache.scale", "_fake_quantizer.qscale_act",
    ".kv_cache_scale", ".kv_cache_offset", ".fa_q.scale", ".fa_k.scale", ".fa_v.scale", ".fa_q.offset", ".fa_k.offset",
    ".fa_v.offset", ".k_global_scale", ".v_global_scale", ".q_global_scale", "k_matmul.activation_scale",
    "v_matmul.activation_scale",
)  # fmt: skip
"""How every key of every convention ends: a million names are sifted by these before any pattern is tried."""

_COMPANION_ENDINGS = ("output_scale", "output_scale_2", "output_zero_point")
_LEFTOVER_ENDINGS = ("_quantizer._amax", "_quantizer._pre_quant_scale")
"""ModelOpt's quantizers as a plain ``save_pretrained`` writes them; its own export writes none."""
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"(?:^|\.)([0-9]+)(?=\.|$)")

MOST_LAYERS = 10_000
"""Layers of a model, whatever a name or a config claims: the deepest that are published have about 200."""

_LONGEST_NUMBER = len(str(MOST_LAYERS - 1))


@dataclass(frozen=True, slots=True)
class Recognised:
    """A key recognised as a KV scale."""

    convention: Convention
    module: str
    role: Role
    kind: Kind
    quantity: Quantity
    layer: int | None


def recognise(key: str) -> Recognised | None:
    """The convention ``key`` follows, or None when it is no KV-cache scale."""
    if not key.endswith(ENDINGS) or FALSE_FRIENDS.search(key) is not None:
        return None
    for convention in CONVENTIONS:
        for pattern in convention.patterns:
            found = pattern.compiled.match(key)
            if found is not None:
                module = found.group("module")
                role = pattern.role or cast("Role", found.group("role"))
                return Recognised(convention, module, role, pattern.kind, pattern.quantity, layer_number(module))
    return None


@lru_cache(maxsize=1 << 13)
def layer_number(path: str) -> int | None:
    """The first number in a dotted path: the layer, in every architecture seen. None where it counts no layers."""
    found = _NUMBER.search(path)
    return int(found.group(1)) if found and len(found.group(1)) <= _LONGEST_NUMBER else None


def without_numbers(name: str) -> str:
    """What names share that differ by their numbers alone: "layers.3.k_scale" -> "layers.*.k_scale"."""
    return _DIGITS.sub("*", name)


def is_companion(key: str) -> bool:
    """Whether ``key`` is no KV scale but a tensor of the same kind on another module (``o_proj.output_scale``): engines
    look for a parameter for it by the same rules, and fail the same way.
    """
    return key.endswith(_COMPANION_ENDINGS) and recognise(key) is None


def is_leftover(key: str) -> bool:
    """Whether ``key`` is what a quantizer of weights or inputs left behind: no part of the model, and no KV scale."""
    return key.endswith(_LEFTOVER_ENDINGS) and recognise(key) is None


def is_nvfp4_global(scale: KVScale) -> bool:
    """Whether a tensor is the global scale of an NVFP4 cache (amax / 2688), over block scales made at run time."""
    return scale.convention == "nvfp4-global" or (scale.kind == "scale" and scale.key.endswith("_scale_2"))


def companion_rows(checkpoint: Checkpoint) -> list[int]:
    """The catalog rows of all companions, in order."""
    return _no_scales(checkpoint, _COMPANION_ENDINGS)


def leftover_rows(checkpoint: Checkpoint) -> list[int]:
    """The catalog rows of all leftovers, in order."""
    return _no_scales(checkpoint, _LEFTOVER_ENDINGS)


def _no_scales(checkpoint: Checkpoint, endings: tuple[str, ...]) -> list[int]:
    catalog = checkpoint.catalog
    return [row for row in catalog.rows_ending(endings) if recognise(catalog.names[row]) is None]


def scale_rows(checkpoint: Checkpoint) -> list[int]:
    """The catalog rows of all KV scales, in order: those of :func:`find_scales`, one for one."""
    return [row for row, _ in _recognised(checkpoint)]


def find_scales(checkpoint: Checkpoint, progress: Progress | None = None) -> tuple[KVScale, ...]:
    """Every KV-cache scale of the checkpoint with its values, in catalog order.

    A key that stands in two shards gives one KVScale for each. Values that cannot be read give an empty tuple and a
    ``fault``.
    """
    return _with_values(checkpoint, _recognised(checkpoint), progress)


def _recognised(checkpoint: Checkpoint) -> list[tuple[int, Recognised]]:
    names = checkpoint.catalog.names
    found = ((row, recognise(names[row])) for row in checkpoint.catalog.rows_ending(ENDINGS))
    return [(row, scale) for row, scale in found if scale is not None]


def _with_values(
    checkpoint: Checkpoint, rows: Sequence[tuple[int, Recognised]], progress: Progress | None
) -> tuple[KVScale, ...]:
    scales = []
    values = checkpoint.read_rows([index for index, _ in rows], progress=progress)
    for (index, found), read in zip(rows, values, strict=True):
        entry = checkpoint.catalog.entry(index)
        scales.append(
            KVScale(
                key=entry.key,
                file=entry.shard,
                role=found.role,
                kind=found.kind,
                layer=found.layer,
                module=found.module,
                convention=found.convention.id,
                dtype=entry.dtype,
                shape=entry.shape,
                values=read.values,
                quantity=found.quantity,
                fault=read.fault,
            )
        )
    return tuple(scales)
