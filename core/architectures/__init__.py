"""Where a model's attention layers live and how its loaders are nested.

The facts are data in ``resources/architectures``, written by ``survey_vllm.py`` from a real vLLM that builds the tiny
models of ``configs.json``:

``vllm-<version>.json`` (schema ``kvscope.modules/2``)
    ``architectures``: name -> ``root`` (a module class) and ``surveyed`` (see :func:`how_surveyed`).
    ``not_surveyed``: name -> why the model could not be built; nothing is known of it. In vLLM 0.33.0 there is none:
    what could not be built there stands in ``static_by_hand.json`` (schema ``kvscope.static-modules/1``), modules as
    the sources nest them, and is merged in as "static".
    ``language_models``: ``model_type`` -> architecture, where a text config names none.
    ``modules``: module class -> ``children`` (name -> class) or ``each`` (layer kind -> class, "*" for all kinds, with
    ``count``: "layer_kinds", the config fields that hold the number, the number, or for draft models "drafts" and
    "draft_layers", whose numbers go on after the last layer); ``parameters`` (names);
    ``attention`` ("Attention" or "MLAAttention": it has a KV cache), ``quantized`` false where it gets no quant config,
    ``cache_config`` false where it gets no cache config (its ``kv_cache_dtype`` is "auto" in an engine that uses fp8);
    ``chosen_by_config`` (the language model that a text config names stands here, this one if it names none);
    ``quant_config`` (true: the attribute holds the config, false: the attribute is None, absent: no attribute);
    ``loader``: how the class loads its own weights: ``auto`` (AutoWeightsLoader with ``mapper``, ``ignore_prefixes``,
    ``ignore_suffixes``, before vLLM 0.33 also ``skip_prefixes`` and ``skip_containing``, and ``before``: where it
    changes names, or chooses its mapper by them), ``fused_linear``, or ``own`` (``of``: where it is written). A rule
    with ``{"kind": ...}`` holds for each layer of that kind ("draft": the layers after the last, which belong to the
    draft model).

``own_loaders.json`` (schema ``kvscope.own-loaders/2``), read from the source by hand
    ``before``: the changes to names as regular expressions, applied ahead of the mapper or instead of it.
    ``loaders``: for ``own`` loaders, the stacked names in order, where ``maybe_remap_kv_scale_name`` runs ("first",
    "stacked", "others", "both" of these, "never"), and whether an absent name raises or is skipped; ``lacked_by``:
    class -> the attribute that the loop asks for before the first tensor, and that this class never gets. ``at_end``:
    the ``error`` after the last tensor, unless every layer has full attention and the config this field; and what
    follows unless a ``field`` is the same for every layer.

``loops-vllm-<version>.json`` (schema ``kvscope.loops/1``), for older versions instead of ``own_loaders.json``: the same
    two things, the loaders as steps that :mod:`core.architectures.loops` describes.

``config_classes.json`` (schema ``kvscope.config-classes/1``), written by ``survey_config_classes.py``
    ``heads``: ``model_type`` -> the heads and the key/value heads (null: as many as heads) where config.json says
    neither; ``layers``: ``model_type`` -> how many layers, or the kind of each, where it does not say; ``text``:
    ``model_type`` -> that of the language model inside; ``models``: ``model_type`` -> the architecture where
    config.json names none.
"""

from __future__ import annotations

from core.architectures.derived import Derived, derive_model
from core.architectures.loops import LoopLoader
from core.architectures.modules import (
    AutoLoader,
    FusedLinearLoader,
    Loader,
    ModuleNode,
    OwnLoader,
    build_model,
)
from core.architectures.surveys import how_surveyed, known_architectures, why_not_surveyed, why_static

__all__ = [
    "AutoLoader",
    "Derived",
    "FusedLinearLoader",
    "Loader",
    "LoopLoader",
    "ModuleNode",
    "OwnLoader",
    "build_model",
    "derive_model",
    "how_surveyed",
    "known_architectures",
    "why_not_surveyed",
    "why_static",
]
