"""Builds models in a real vLLM on a CPU, one after the other, and prints what ``survey_vllm.py`` records of them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache, partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

from resources.architectures.survey_tree import Tree

FIRST = "MixtralForCausalLM"
"""Every process sets vLLM's process groups up for a mixture of experts, so that any model may follow."""

ABSENT = ("cuda", "cutlass", "torchaudio")
"""Packages that models import, and that need not be there to build one."""

ABSENT_ON_CPU = ("flashinfer", "deep_gemm", "deep_ep", "humming", "quack")
"""Those whose presence changes what vLLM builds; stood in for where a config says ``gpu``."""

KERNELS = ("vllm.vllm_flash_attn", "vllm.third_party.deep_gemm", "vllm.third_party.flashmla")
"""vLLM's own copies of kernel libraries, which its builds for CPUs lack."""

FLASH_FUNCTIONS = (
    "flash_attn_varlen_func",
    "compile_flash_attn_varlen_func_from_specs",
    "get_scheduler_metadata",
    "reshape_and_cache_flash",
)

OWN_FOR_CPU = ("vllm.models.deepseek_v4", "vllm.models.deepseek_v41")
"""Packages that hold another implementation for CPUs: imported as on a GPU where a config says ``gpu``."""

QUANTIZATION = {
    "quant_method": "modelopt",
    "quant_algo": "FP8",
    "kv_cache_scheme": {"num_bits": 8, "type": "float"},
}


def work(harness_path: str, configs: Mapping[str, Mapping[str, Any]], names: list[str]) -> None:
    """Builds these models one by one; one line of JSON on stdout announces each, another tells what became of it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    harness = load_harness(harness_path)  # first: it also sets the environment that vLLM reads when it is imported
    import vllm
    from vllm.model_executor.models.registry import _VLLM_MODELS

    harness.cpu_patches()
    gpu_stand_ins()
    build(harness, configs[FIRST])
    tell(version=vllm.__version__, registered=_VLLM_MODELS, language_models=language_models())
    for name in names:
        tell(starts=name)
        try:
            model, vllm_config = build(harness, configs[name])
            tree = Tree(configs[name])
            root = tree.node(model)
            built = vllm_config.model_config.hf_config.architectures
        except BaseException as error:  # noqa: BLE001  (whatever a model dies of is the answer)
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            said = re.sub(
                rf"'?{re.escape(tempfile.gettempdir())}/\w+'?", "the model folder", " ".join(str(error).split())
            )
            tell(name=name, failed=f"{type(error).__name__}: {said} ({place})"[:400])
        else:
            if built != [name]:
                tell(name=name, failed=f"vLLM built {built} instead")
                continue
            file, package = type(model).__module__, _VLLM_MODELS.get(name, ("",))[0]
            elsewhere = package.startswith("vllm.models.") and (not file.startswith(package) or ".cpu." in file)
            surveyed = "executed: the engine's implementation for CPUs" if elsewhere else "executed"
            tell(name=name, root=root, modules=tree.modules, surveyed=surveyed)


def draft(**fields: Any) -> Any:
    """The part of a speculative config that a draft model asks for; whatever else is asked for is not set."""
    from vllm.config import SpeculativeConfig

    class Draft(SpeculativeConfig):  # type: ignore[misc]
        def __getattr__(self, name: str) -> None:
            if name.startswith("__"):
                raise AttributeError(name)

    made = object.__new__(Draft)
    made.__dict__.update(fields)
    return made


def speculate(vllm_config: Any) -> None:
    """Tells a draft model that it is one."""
    made = draft(
        draft_model_config=vllm_config.model_config,
        draft_parallel_config=vllm_config.parallel_config,
        num_speculative_tokens=2,
        method="eagle3",
    )
    object.__setattr__(vllm_config, "speculative_config", made)


def build(harness: Any, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The real model of a config.json, and the vLLM config it was built with."""
    from vllm.config import ModelConfig, SpeculativeConfig, set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.model_executor.models.registry import _SPECULATIVE_DECODING_MODELS
    from vllm.utils.torch_utils import set_default_torch_dtype

    whole = {"quantization_config": QUANTIZATION, **config}
    drafts: dict[str, Any] = {}
    if of := whole.pop("draft_of", None):  # vLLM makes the draft model of a whole model's config
        whole["architectures"] = [of]
        drafts = {"hf_overrides": SpeculativeConfig.hf_config_override}
    if whole.pop("gpu", False):
        as_on_a_gpu()
    stand_in(whole)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(whole))
        runner = partialmethod(ModelConfig.__init__, runner="draft" if of else "auto")
        with patch.object(ModelConfig, "__init__", runner):
            vllm_config, _ = harness.build_vllm_config(folder, "fp8", dtype="bfloat16", **drafts)
        if vllm_config.quant_config is not None:
            harness.stub_quant(vllm_config.quant_config)
        if config["architectures"][0] in _SPECULATIVE_DECODING_MODELS:
            speculate(vllm_config)
        with set_current_vllm_config(vllm_config):
            harness.init_dist()
            with set_default_torch_dtype(vllm_config.model_config.dtype):
                return initialize_model(vllm_config), vllm_config


def stand_in(config: Mapping[str, Any]) -> None:
    """Registers a plain config class for every ``model_type`` that transformers and vLLM do not know."""
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    def construct(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kind = value.get("model_type")
        known = next((classes[kind] for classes in (_CONFIG_REGISTRY, CONFIG_MAPPING) if kind in classes), None)
        return known(**value) if known is not None else Plain(**value)

    class Row(dict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            if name not in self:
                raise AttributeError(name)
            return self[name]

    class Plain(PretrainedConfig):  # type: ignore[misc]
        def __post_init__(self, **fields: Any) -> None:
            plain = ("quantization_config", "generation_config", "per_layer_config", "sparse_attention_config")
            for name, value in fields.items():
                if name in ("encoder", "decoder") or (name.endswith("_config") and name not in plain):
                    fields[name] = construct(value)
                elif name.endswith("_configs"):
                    fields[name] = json.loads(json.dumps(value), object_hook=Row)
            super().__post_init__(**fields)

    kind = config.get("model_type")
    if kind and kind not in CONFIG_MAPPING and kind not in _CONFIG_REGISTRY:
        named = config.get("auto_map", {}).get("AutoConfig", "Plain").rpartition(".")[2]
        AutoConfig.register(kind, type(named, (Plain,), {"model_type": kind}))


def gpu_stand_ins() -> None:
    """Lets models be built that only a GPU can run, or that ask for files which a config alone has not: kernel
    libraries, CUDA events, attention kernels, tokenizers and processors are stood in for by nothing at all. No loading
    code is touched, and nothing is ever run.
    """
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    import torch.cuda
    import vllm.tokenizers.registry
    from vllm.config import ModelConfig
    from vllm.model_executor.models import utils
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl

    class Nothing(MetaPathFinder, Loader):
        def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            absent = fullname.partition(".")[0] in stood_in_for or fullname.startswith(KERNELS)
            return ModuleSpec(fullname, self, is_package=True) if absent else None

        def create_module(self, spec: ModuleSpec) -> ModuleType:
            module = MagicMock(name=spec.name)
            module.__path__ = []
            module.melscale_fbanks.return_value = torch.zeros(1)
            return module

        def exec_module(self, module: ModuleType) -> None:
            pass

    understood = inspect.signature(CPUAttentionBackendImpl.__init__).parameters

    class Kernel(CPUAttentionBackendImpl):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **{name: value for name, value in named.items() if name in understood})

    sys.meta_path.insert(0, Nothing())
    importlib.import_module(KERNELS[0])

    def takes_inputs(model_config: Any) -> bool:
        try:
            return bool(asked(model_config))
        except Exception:  # noqa: BLE001  (its processor is not there to ask)
            return True

    asked = getattr(ModelConfig, "_supports_multimodal_inputs", bool)  # absent before vLLM 0.33
    ModelConfig._supports_multimodal_inputs = takes_inputs  # noqa: SLF001
    for module in (vllm.tokenizers, vllm.tokenizers.registry):
        module.cached_tokenizer_from_config = lambda _, **__: MagicMock()
    utils.init_vllm_registered_model = mark_language_models(utils.init_vllm_registered_model)
    for name in ("Event", "Stream"):
        setattr(torch.cuda, name, MagicMock)
    CPUAttentionBackend.get_impl_cls = staticmethod(lambda: Kernel)
    CPUAttentionBackend.supports_alibi_sqrt = classmethod(lambda _: True)


@cache
def as_on_a_gpu() -> None:
    """For models that refuse to be built elsewhere: kernels that only run on a GPU are said to be there. It holds for
    the whole process.
    """
    import torch
    import vllm.v1.attention.backends.fa_utils as kernels
    from vllm.model_executor.models import registry
    from vllm.multimodal.processing import BaseMultiModalProcessor
    from vllm.platforms import current_platform
    from vllm.platforms.interface import DeviceCapability
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    platform = type(current_platform)
    platform.get_device_capability = classmethod(lambda *_, **__: DeviceCapability(9, 0))
    platform.get_vit_attn_backend = classmethod(lambda *_, **__: AttentionBackendEnum.FLASH_ATTN)
    platform.get_supported_vit_attn_backends = classmethod(lambda _: [AttentionBackendEnum.FLASH_ATTN])
    torch.accelerator.current_device_index = lambda: 0
    BaseMultiModalProcessor.requires_tokenizer = False
    kernels.is_flash_attn_varlen_func_available = lambda: True
    for name in FLASH_FUNCTIONS:
        setattr(kernels, name, getattr(kernels, name, MagicMock()))
    registry._LazyRegisteredModel.inspect_model_cls = (  # noqa: SLF001
        lambda model: registry._ModelInfo.from_model_cls(model.load_model_cls())  # noqa: SLF001
    )
    stood_in_for.extend(ABSENT_ON_CPU)
    with patch.object(platform, "is_cpu", lambda _: False):
        for package in OWN_FOR_CPU:
            sys.modules.pop(package, None)
            importlib.import_module(package)


stood_in_for = list(ABSENT)


def mark_language_models(initialize: Any) -> Any:
    """How vLLM makes an inner model, marking those that the checkpoint's own text config chooses."""

    def marking(*given: Any, hf_config: Any = None, architectures: Any = None, **named: Any) -> Any:
        free = architectures is None or architectures == getattr(hf_config, "architectures", None)
        model = initialize(*given, hf_config=hf_config, architectures=architectures, **named)
        model.chosen_by_config = free and hf_config is not None
        return model

    return marking


def language_models() -> dict[str, str]:
    """What vLLM takes where a text config names no architecture: the one transformers has for its ``model_type``."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from vllm.model_executor.models.registry import _VLLM_MODELS

    return {kind: name for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name in _VLLM_MODELS}


def load_harness(path: str) -> Any:
    """The module in that file."""
    spec = importlib.util.spec_from_file_location("harness", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    return harness
