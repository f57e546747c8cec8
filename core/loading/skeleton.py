"""From a prediction's set-up to a real ``nn.Module`` tree: every module of the engine's model by name, its attention
layers with real scale parameters, and everything else as placeholders that cost no memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn

from core.architectures.layers import positive, text_config_of
from core.architectures.loops import LoopLoader
from core.architectures.modules import UNCOUNTED, AutoLoader, FusedLinearLoader, ModuleNode, OwnLoader
from core.backends.base import Backend
from core.checkpoint.columns import collector_paused
from core.engines.vllm.releases import NEWEST, Release
from core.loading.attention import Attention, MLAAttention
from core.loading.auto_loader import AutoWeightsLoader, Weights
from core.loading.kv_cache import kv_cache_method
from core.loading.linear import QUANTIZED_LINEAR_PARAMETERS, FusedLinear
from core.loading.own_loaders import ExpertWeights, OwnLoadedModule
from core.loading.parameters import WeightPlaceholder
from core.naming.mapper import WeightsMapper
from core.progress import Progress
from core.wording import say

if TYPE_CHECKING:
    from core.engines.vllm.predict import Layer, Setup

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MIXTURE = re.compile(r"\blayers\.([0-9]{1,9})\.mlp$")
_EXPERTS = ("MoERunner", "RoutedExperts", "GptOssRoutedExperts")


class AutoLoadedModule(nn.Module):
    """A model, or a part of one, that loads itself through :class:`AutoWeightsLoader` with its own rules."""

    def __init__(self, loader: AutoLoader, release: Release = NEWEST) -> None:
        super().__init__()
        self.loader = loader
        self.release = release

    @property
    def mapper(self) -> WeightsMapper:
        return self.loader.mapper

    def load_weights(self, weights: Weights) -> set[str]:
        """Load the stream; the names of the parameters that were written. Raises as AutoWeightsLoader does."""
        auto = AutoWeightsLoader(
            self,
            ignore_unexpected_prefixes=self.loader.ignore_prefixes,
            ignore_unexpected_suffixes=self.loader.ignore_suffixes,
            skip_prefixes=self.loader.skip_prefixes,
            skip_substrs=(*self.loader.skip_containing, *self.release.skip_containing),
            drops_rotary=not self.release.skip_containing,
        )
        return auto.load_weights(weights, mapper=self.mapper)


def _is_uncounted(node: ModuleNode) -> bool:
    """Whether this is a list of equal layers without attention, of which there are as many as a tower may have."""
    if len(node.children) != UNCOUNTED or any(node.attention_layers()):
        return False
    return len({id(child) for child in node.children.values()}) == 1


@cache
def _named(name: str, base: type[nn.Module]) -> type[nn.Module]:
    """A subclass that bears the engine's class name, because errors name it."""
    return type(name, (base,), {"__module__": __name__})


class Skeleton:
    """Builds the module tree of one set-up; every module is one of its own, equal layers share nothing. But the layers
    of a tower that the config does not count are one module under many names: they hold no attention with a KV cache,
    and lists in lists of them would be millions of modules.

    ``whole``: also take all ordinary weights (quantized linear parameters, experts), and keep them on ``home``.
    """

    def __init__(
        self, setup: Setup, *, home: torch.device | None = None, whole: bool = False, progress: Progress | None = None
    ) -> None:
        self._layers: Mapping[str, Layer] = {layer.path: layer for layer in setup.layers}
        self._setup = setup
        self._backend: Backend | None = setup.backend
        self._home = home or torch.device("cpu")
        self._whole = whole
        self._progress = progress or Progress()
        text = text_config_of(setup.hf_config)
        first = positive(text, "num_hidden_layers") or 0
        self._dense_layers = positive(text, "first_k_dense_replace") or 0
        self._draft_layers = range(first, first + (positive(text, "num_nextn_predict_layers") or 0))

    def build(self) -> nn.Module:
        """The whole tree. Raises NotImplementedError for a KV method that has no counterpart here."""
        return self._build(self._setup.root, "")

    def _build(self, node: ModuleNode, path: str) -> nn.Module:
        module = self._make(node, path)
        if node.quant_config is not None:
            module.quant_config = self._backend if node.quant_config else None  # type: ignore[assignment]
        if not isinstance(module, ExpertWeights):
            for name in self._parameter_names(node):
                module.register_parameter(name, WeightPlaceholder(self._home))
            each = self._whole or not _is_uncounted(node)
            built: nn.Module | None = None
            for name, child in node.children.items():
                of_child = f"{path}.{name}" if path else name
                if built is None or each:
                    built = self._build(self._dense(child, of_child), of_child)
                module.register_module(name, built)
        return module

    def _dense(self, node: ModuleNode, path: str) -> ModuleNode:
        """The plain MLP that stands in a mixture's place in the first layers of DeepSeek models.

        The survey knows one kind of layer, which is enough for scales. The MLP is of the class of the shared experts
        (vLLM 0.33.0, models/deepseek_v2.py, DeepseekV2DecoderLayer).
        """
        found = _MIXTURE.search(path) if self._whole and "shared_experts" in node.children else None
        return node.children["shared_experts"] if found and int(found.group(1)) < self._dense_layers else node

    def _make(self, node: ModuleNode, path: str) -> nn.Module:
        if node.attention is not None:
            self._progress.advance()
            return self._attention(node, path)
        if self._whole and node.cls in _EXPERTS:
            return _named(node.cls, ExpertWeights)(self._home, path)
        match node.loader:
            case AutoLoader(before=None):
                return _named(node.cls, AutoLoadedModule)(node.loader, self._setup.release)
            case OwnLoader():
                return _named(node.cls, OwnLoadedModule)(node.loader, self._draft_layers, path)
            case FusedLinearLoader():
                return _named(node.cls, FusedLinear)()
            case LoopLoader() | AutoLoader():
                raise NotImplementedError(
                    say("{loader} loads in a loop of an older release, which is predicted only", loader=node.cls)
                )
            case None:
                return _named(node.cls, nn.Module)()

    def _attention(self, node: ModuleNode, path: str) -> nn.Module:
        layer = self._layers[path]
        kind = MLAAttention if node.attention == "MLAAttention" else Attention
        return _named(node.cls, kind)(
            shape=layer.shape,
            cache=layer.cache,
            params_dtype=DTYPES[self._setup.dtype],
            quant_method=kv_cache_method(layer.method),
            tp_rank=layer.shape.tp_rank,
            tp_size=layer.shape.tp_size,
        )

    def _parameter_names(self, node: ModuleNode) -> list[str]:
        names = sorted(node.parameters)
        if self._whole and "weight" in node.parameters and ("Linear" in node.cls or "LMHead" in node.cls):
            names += [name for name in QUANTIZED_LINEAR_PARAMETERS if name not in node.parameters]
        return names


def build_skeleton(
    setup: Setup, *, home: torch.device | None = None, whole: bool = False, progress: Progress | None = None
) -> nn.Module:
    """The engine's model as far as loading looks at it, on the host. See :class:`Skeleton`."""
    with collector_paused():  # which would walk thousands of living modules again and again
        return Skeleton(setup, home=home, whole=whole, progress=progress).build()


def attention_layers(model: nn.Module) -> Iterator[tuple[str, Attention]]:
    """Path and module of every attention layer with a KV cache, in module order."""
    for path, module in model.named_modules():
        if isinstance(module, Attention):
            yield path, module
