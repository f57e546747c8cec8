"""Where a model's attention layers live and how its loaders are nested.

The facts are data in ``resources/architectures``, written by ``survey_vllm.py`` from a real vLLM:

``vllm-<version>.json`` (schema ``kvscope.modules/1``)
    ``architectures``: name -> ``root`` (a module class) and ``surveyed`` ("executed": the model was really built).
    ``modules``: module class -> ``children`` (name -> class) or ``each`` (layer kind -> class, "*" for all kinds, with
    ``count``: "layer_kinds" or the config fields that hold the number); ``parameters`` (names); ``attention``
    ("Attention" or "MLAAttention": it has a KV cache), ``quantized`` false where it gets no quant config;
    ``quant_config`` (true: the attribute holds the config, false: the attribute is None, absent: no attribute);
    ``loader``: how the class loads its own weights: ``auto`` (AutoWeightsLoader with ``mapper``, ``ignore_prefixes``,
    ``ignore_suffixes``), ``fused_linear``, or ``own``. A rule with ``{"kind": ...}`` holds for each layer of that kind.

``own_loaders.json`` (schema ``kvscope.own-loaders/1``)
    For ``own`` loaders, read from the source by hand: the stacked names in order, whether
    ``maybe_remap_kv_scale_name`` runs ("stacked", "others", "never"), and whether an absent name raises or is skipped.
"""

from __future__ import annotations

from core.architectures.modules import (
    AutoLoader,
    FusedLinearLoader,
    Loader,
    ModuleNode,
    OwnLoader,
    build_model,
    known_architectures,
)

__all__ = [
    "AutoLoader",
    "FusedLinearLoader",
    "Loader",
    "ModuleNode",
    "OwnLoader",
    "build_model",
    "known_architectures",
]
