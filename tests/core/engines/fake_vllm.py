"""A package tree that calls itself vllm: as little of it as the probe's script looks at, written file by file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

_MAPPER = """
from dataclasses import dataclass, field


@dataclass
class WeightsMapper:
    orig_to_new_renaming: list = field(default_factory=list)
    orig_to_new_regex: dict = field(default_factory=dict)
    orig_to_new_substr: dict = field(default_factory=dict)
    orig_to_new_stacked: dict = field(default_factory=dict)
    orig_to_new_prefix: dict = field(default_factory=dict)
    orig_to_new_suffix: dict = field(default_factory=dict)

    def __or__(self, other):
        return WeightsMapper(
            **{
                name: held + vars(other)[name] if isinstance(held, list) else {**held, **vars(other)[name]}
                for name, held in vars(self).items()
            }
        )

    def map_name(self, name):
        for pattern, new in self.orig_to_new_regex.items():
            if pattern.search(name):
                name = pattern.sub(new, name)
        for old, (new, _) in self.orig_to_new_stacked.items():
            name = name.replace(old, new, 1)
        for old, new in self.orig_to_new_suffix.items():
            if name.endswith(old):
                if new is None:
                    return None
                name = name[: -len(old)] + new
        return name


class AutoWeightsLoader:
    def __init__(self, module, ignore_unexpected_prefixes=None):
        self.module = module

    def load_weights(self, weights, *, mapper=None):
        return set()
"""

_BASE = """
import re

from vllm.model_executor.models.utils import WeightsMapper


class QuantizationConfig:
    _ignore_unexpected_suffixes = (".k_scale", ".v_scale")

    @staticmethod
    def get_cache_scale_mapper():
        return WeightsMapper(orig_to_new_regex={re.compile(r"\\.kv_scale$", re.IGNORECASE): ".attn.k_scale"})

    @staticmethod
    def get_checkpoint_weight_mapper():
        return WeightsMapper(orig_to_new_suffix={".g_idx": None})
"""

_METHODS = """
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.model_executor.models.utils import WeightsMapper


class Fp8Config(QuantizationConfig):
    @staticmethod
    def get_cache_scale_mapper():
        mine = WeightsMapper(orig_to_new_suffix={".k_proj.output_scale": ".attn.k_scale"})
        return mine | QuantizationConfig.get_cache_scale_mapper()


class AskedConfig(QuantizationConfig):
    _ignore_unexpected_suffixes = None

    def get_cache_scale_mapper(self):
        return None

    def get_cache_scale(self, name):
        return name


class PluginConfig(QuantizationConfig):
    pass


class BrokenConfig(QuantizationConfig):
    @staticmethod
    def get_cache_scale_mapper():
        raise RuntimeError("no rules today")


CONFIGS = {"fp8": Fp8Config, "asked": AskedConfig, "broken": BrokenConfig}
QUANTIZATION_METHODS = list(CONFIGS)


def get_quantization_config(name):
    return CONFIGS[name]
"""

_PLUGINS = """
def load_general_plugins():
    from vllm.model_executor.layers import quantization

    quantization.CONFIGS["plugin"] = quantization.PluginConfig
    quantization.QUANTIZATION_METHODS.append("plugin")
"""

_LLAMA = """
from torch import nn

from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper


class LlamaModel(nn.Module):
    hf_to_vllm_mapper = WeightsMapper(orig_to_new_stacked={".q_proj": (".qkv_proj", "q"), ".w": (".v", [0, 1])})

    def load_weights(self, weights):
        loader = AutoWeightsLoader(self)
        return loader.load_weights(weights, mapper=self.hf_to_vllm_mapper)


class LlamaForCausalLM(nn.Module):
    hf_to_vllm_mapper = LlamaModel.hf_to_vllm_mapper

    def load_weights(self, weights):
        loader = AutoWeightsLoader(self, ignore_unexpected_prefixes=["lm_head."])
        return loader.load_weights(weights)


class ChildForCausalLM(LlamaForCausalLM):
    # A comment is no code.
    def load_weights(self, weights):

        return super().load_weights(weights)


class InheritingForCausalLM(ChildForCausalLM):
    pass


class OwnForCausalLM(nn.Module):
    def load_weights(self, weights):
        return {name for name, _ in weights}


class OtherForCausalLM(nn.Module):
    hf_to_vllm_mapper = WeightsMapper()

    def load_weights(self, weights):
        mapper = self.hf_to_vllm_mapper | WeightsMapper()
        return AutoWeightsLoader(self).load_weights(weights, mapper=mapper)
"""

_CHANGED = """
from torch import nn

from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper


class ChangedForCausalLM(nn.Module):
    hf_to_vllm_mapper = WeightsMapper()

    def __init__(self):
        self.hf_to_vllm_mapper = self.hf_to_vllm_mapper | WeightsMapper()

    def load_weights(self, weights):
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
"""

_REGISTRY = """
class Lazy:
    def __init__(self, module_name, class_name):
        self.module_name = "vllm.model_executor.models." + module_name
        self.class_name = class_name


class Registered:
    @property
    def model_cls(self):
        from vllm.model_executor.models.llama import LlamaForCausalLM

        return LlamaForCausalLM


class ModelRegistry:
    models = {
        **{name: Lazy("llama", name) for name in (
            "LlamaForCausalLM", "ChildForCausalLM", "InheritingForCausalLM", "OwnForCausalLM", "OtherForCausalLM",
            "AbsentForCausalLM",
        )},
        "ChangedForCausalLM": Lazy("changed", "ChangedForCausalLM"),
        "OddForCausalLM": Lazy("odd", "OddForCausalLM"),
    }
"""

_ODD = """
import os

raise RuntimeError("hub offline: " + os.environ["HF_HUB_OFFLINE"])
"""

FILES = {
    "torch/__init__.py": "",
    "torch/nn.py": "class Module:\n    pass\n",
    "vllm/__init__.py": '__version__ = "0.33.0"\nprint("a banner on stdout")\n',
    "vllm/platforms/__init__.py": "class FakePlatform:\n    pass\n\n\ncurrent_platform = FakePlatform()\n",
    "vllm/plugins/__init__.py": _PLUGINS,
    "vllm/model_executor/__init__.py": "",
    "vllm/model_executor/layers/__init__.py": "",
    "vllm/model_executor/layers/quantization/__init__.py": _METHODS,
    "vllm/model_executor/layers/quantization/base_config.py": _BASE,
    "vllm/model_executor/models/__init__.py": "",
    "vllm/model_executor/models/utils.py": _MAPPER,
    "vllm/model_executor/models/registry.py": _REGISTRY,
    "vllm/model_executor/models/llama.py": _LLAMA,
    "vllm/model_executor/models/changed.py": _CHANGED,
    "vllm/model_executor/models/odd.py": _ODD,
}


def environment(folder: Path, changed: Mapping[str, str | None] | None = None) -> Path:
    """A Python with that package tree, in which files are ``changed`` or, with None, left out. It is the Python that
    runs the tests.
    """
    for name, text in {**FILES, **(changed or {})}.items():
        if text is not None:
            path = folder / "packages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return program(folder, f'export PYTHONPATH="{folder / "packages"}"\nexec "{sys.executable}" "$@"\n')


def program(folder: Path, body: str) -> Path:
    """A folder's bin/python that is this shell script."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f"#!/bin/sh\n{body}")
    python.chmod(0o755)
    return python
