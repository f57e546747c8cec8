"""Builds models in a real vLLM on a CPU, one after the other, and prints what ``survey_vllm.py`` records of them."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resources.architectures.survey_tree import Tree

FIRST = "MixtralForCausalLM"
"""Every process sets vLLM's process groups up for a mixture of experts, so that any model may follow."""

GPU_LIBRARIES = ("cuda", "cutlass")
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

    import vllm

    harness = _harness(harness_path)
    harness.cpu_patches()
    gpu_stand_ins()
    build(harness, configs[FIRST])
    tell(version=vllm.__version__)
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
            tell(name=name, failed=f"{type(error).__name__}: {' '.join(str(error).split())} ({place})"[:400])
        else:
            if built != [name]:
                tell(name=name, failed=f"vLLM built {built} instead")
                continue
            tell(name=name, root=root, modules=tree.modules)


def build(harness: Any, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The real model of a config.json, and the vLLM config it was built with."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    stand_in(config)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({"quantization_config": QUANTIZATION, **config}))
        vllm_config, _ = harness.build_vllm_config(folder, "fp8", dtype="bfloat16")
        if vllm_config.quant_config is not None:
            harness.stub_quant(vllm_config.quant_config)
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
        known = _CONFIG_REGISTRY.get(kind) or (CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None)  # noqa: SIM401
        return known(**value) if known is not None else Plain(**value)

    class Plain(PretrainedConfig):  # type: ignore[misc]
        def __init__(self, **fields: Any) -> None:
            nested = {
                name: construct(value)
                for name, value in fields.items()
                if name.endswith("_config") and name not in ("quantization_config", "generation_config")
            }
            super().__init__(**{name: value for name, value in fields.items() if name not in nested})
            for name, value in nested.items():
                setattr(self, name, value)

    kind = config.get("model_type")
    if kind and kind not in CONFIG_MAPPING and kind not in _CONFIG_REGISTRY:
        AutoConfig.register(kind, type("Plain", (Plain,), {"model_type": kind}))


def gpu_stand_ins() -> None:
    """Lets models be built that only a GPU can run: kernel libraries, CUDA events and attention kernels that a CPU has
    not are stood in for by nothing at all. No loading code is touched, and nothing is ever run.
    """
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from unittest.mock import MagicMock

    import torch.cuda
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl

    class Nothing(MetaPathFinder, Loader):
        def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in GPU_LIBRARIES else None

        def create_module(self, spec: ModuleSpec) -> ModuleType:
            module = MagicMock(name=spec.name)
            module.__path__ = []
            return module

        def exec_module(self, module: ModuleType) -> None:
            pass

    understood = inspect.signature(CPUAttentionBackendImpl.__init__).parameters

    class Kernel(CPUAttentionBackendImpl):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **{name: value for name, value in named.items() if name in understood})

    sys.meta_path.append(Nothing())
    for name in ("Event", "Stream"):
        setattr(torch.cuda, name, MagicMock)
    CPUAttentionBackend.get_impl_cls = staticmethod(lambda: Kernel)
    CPUAttentionBackend.supports_alibi_sqrt = classmethod(lambda _: True)


def _harness(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("harness", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    return harness
