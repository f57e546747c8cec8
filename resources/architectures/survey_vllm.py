"""Writes vllm.json: how vLLM's models are nested, surveyed from a real, importable vLLM.

Run it with the Python of an environment in which vLLM and its CPU test harness work (no GPU is needed):

    python survey_vllm.py HARNESS OUT CONFIG.json [CONFIG.json ...]

HARNESS is a Python file that offers ``cpu_patches()``, ``build_vllm_config(path, kv_cache_dtype, dtype=...)``,
``stub_quant(quant_config)`` and ``init_dist()``. Each CONFIG is a Hugging Face ``config.json`` of a tiny model; its
first architecture is built for real, and the module tree, every module's own loader with the mapper it passes, and
the places where ``quant_config`` is visible are recorded. The schema of the result is described in
``core/architectures/__init__.py``.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core.architectures.layers import layer_kinds

SCALES = ("q_scale", "k_scale", "v_scale", "prob_scale", "q_zero_point", "k_zero_point", "v_zero_point")


def _mapper(mapper: Any) -> dict[str, Any]:
    if mapper is None:
        return {}
    found: dict[str, Any] = {}
    for kind in ("regex", "substr", "stacked", "prefix", "suffix"):
        pairs = []
        for pattern, new in getattr(mapper, f"orig_to_new_{kind}").items():
            text = pattern.pattern if kind == "regex" else pattern
            pairs.append([text, *new] if kind == "stacked" else [text, new])
        if pairs:
            found[kind] = pairs
    if mapper.orig_to_new_renaming:
        found["renaming"] = [
            [source, target]
            for rule in mapper.orig_to_new_renaming
            for source, target in zip(rule.source_patterns, rule.target_patterns, strict=True)
        ]
    return found


def by_kind(loader: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Rules that name single layers, folded into one rule with ``{layer}`` for each kind of layer."""
    kinds = layer_kinds(config)
    mapper = loader.get("mapper")
    if not mapper:
        return loader
    folded: dict[str, list[list[Any]]] = {}
    for kind, pairs in mapper.items():
        seen: list[list[Any]] = []
        for pattern, new, *shard in pairs:
            found = re.search(r"(?<![0-9A-Za-z_])layers\.(\d+)\.", pattern)
            row: list[Any] = [pattern, new, *shard]
            if found and int(found.group(1)) < len(kinds):
                number = f"layers.{found.group(1)}."
                row = [
                    pattern.replace(number, "layers.{layer}."),
                    new.replace(number, "layers.{layer}.") if new else new,
                    *shard,
                    {"kind": kinds[int(found.group(1))]},
                ]
            if row not in seen:
                seen.append(row)
        folded[kind] = seen
    return {**loader, "mapper": folded}


class Survey:
    """Collects module classes over all models; equal structures share one entry."""

    def __init__(self) -> None:
        self.modules: dict[str, dict[str, Any]] = {}
        self.architectures: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self.visited: set[int] = set()

    def repeated(self, items: list[str], config: dict[str, Any], path: str) -> dict[str, Any]:
        """A list of layers as one entry for each kind, and how to count them from a config."""
        count: list[str] | str = "layer_kinds"
        if "vision" in path or "visual" in path:
            count = ["vision_config.num_hidden_layers", "vision_config.depth"]
        elif "audio" in path:
            count = ["audio_config.num_hidden_layers"]
        elif "encoder" in path.split("."):
            count = ["encoder_layers", "num_layers"]
        kinds = layer_kinds(config)
        if count != "layer_kinds" or len(kinds) != len(items):
            return {"each": {"*": items[-1]}, "count": count if count != "layer_kinds" else []}
        each: dict[str, str] = {}
        for kind, item in zip(kinds, items, strict=True):
            each[kind] = item  # dense and expert layers differ outside attention only: the last one stands for both
        same = set(each.values())
        return {"each": {"*": same.pop()} if len(same) == 1 else each, "count": "layer_kinds"}

    def intern(self, node: dict[str, Any]) -> str:
        name = node["class"]
        number = 1
        while True:
            key = name if number == 1 else f"{name}#{number}"
            known = self.modules.get(key)
            if known is None:
                self.modules[key] = node
                return key
            if known == node:
                return key
            number += 1

    def loader(self, module: Any) -> dict[str, Any] | None:
        from vllm.model_executor.layers.linear import LinearBase
        from vllm.model_executor.models.utils import AutoWeightsLoader

        if not callable(getattr(module, "load_weights", None)):
            return None
        if isinstance(module, LinearBase):
            return {"kind": "fused_linear"}
        seen: list[dict[str, Any]] = []
        original = AutoWeightsLoader.load_weights

        def record(loader: Any, weights: Any, *, mapper: Any = None) -> set[str]:
            if loader.module is module:
                note: dict[str, Any] = {"kind": "auto"}
                if rules := _mapper(mapper):
                    note["mapper"] = rules
                if loader.ignore_unexpected_prefixes:
                    note["ignore_prefixes"] = list(loader.ignore_unexpected_prefixes)
                if loader.ignore_unexpected_suffixes:
                    note["ignore_suffixes"] = list(loader.ignore_unexpected_suffixes)
                seen.append(note)
            for _ in weights:
                pass
            return set()

        AutoWeightsLoader.load_weights = record
        try:
            module.load_weights(iter(()))
        except Exception as error:  # a loader that cannot run on nothing is one of its own kind
            print(f"  {type(module).__name__}.load_weights on nothing: {error!r}", file=sys.stderr)
        finally:
            AutoWeightsLoader.load_weights = original
        return seen[0] if seen else {"kind": "own"}

    def node(self, module: Any, config: dict[str, Any], path: str = "") -> str | None:
        import torch.nn as nn
        from vllm.model_executor.layers.attention import Attention, MLAAttention

        attends = any(isinstance(child, Attention | MLAAttention) for child in module.modules())
        if attends and id(module) in self.visited:  # layers under a second name: loaders reach them by the first
            return None
        self.visited.add(id(module))
        entry: dict[str, Any] = {"class": type(module).__name__}
        if isinstance(module, Attention | MLAAttention):
            entry["attention"] = "MLAAttention" if isinstance(module, MLAAttention) else "Attention"
            if getattr(module, "quant_config", None) is None and entry["attention"] == "Attention":
                entry["quantized"] = False
            return self.intern(entry)
        if loader := self.loader(module):
            entry["loader"] = by_kind(loader, config)
        if hasattr(module, "quant_config"):
            entry["quant_config"] = module.quant_config is not None
        names = [name for name, _ in module.named_parameters(recurse=False) if name not in SCALES]
        names += [
            name for name, _ in module.named_buffers(recurse=False) if name not in module._non_persistent_buffers_set
        ]
        if names:
            entry["parameters"] = sorted(names)
        children: dict[str, Any] = {}
        named = list(module.named_children())
        if isinstance(module, nn.ModuleList) and named and all(name.isdigit() for name, _ in named):
            items = [self.node(child, config, f"{path}.{name}") for name, child in named]
            if any(items):
                entry.update(self.repeated([item for item in items if item is not None], config, path))
        else:
            for name, child in named:
                key = self.node(child, config, f"{path}.{name}" if path else name)
                if key is not None:
                    children[name] = key
        if children:
            entry["children"] = children
        return self.intern(entry)


def survey_one(harness: Any, path: Path, survey: Survey) -> None:
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    config = json.loads(path.read_text())
    config.setdefault(
        "quantization_config",
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
    )
    name = config["architectures"][0]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        for extra in ("preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
            if (path.parent / extra).exists():
                shutil.copy(path.parent / extra, folder)
        vllm_config, _ = harness.build_vllm_config(folder, "fp8", dtype="bfloat16")
        if vllm_config.quant_config is not None:
            harness.stub_quant(vllm_config.quant_config)
        with set_current_vllm_config(vllm_config):
            harness.init_dist()
            with set_default_torch_dtype(vllm_config.model_config.dtype):
                model = initialize_model(vllm_config)
        survey.visited.clear()
        survey.architectures[name] = {"root": survey.node(model, config), "surveyed": "executed"}


def main() -> None:
    harness_path, out, *configs = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("harness", harness_path)
    assert spec is not None
    assert spec.loader is not None
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    harness.cpu_patches()
    survey = Survey()
    for text in configs:
        try:
            survey_one(harness, Path(text), survey)
            print(f"{text}: ok", file=sys.stderr)
        except BaseException as error:
            traceback.print_exc()
            survey.failed[text] = f"{type(error).__name__}: {error}"
    import vllm

    result = {
        "schema": "kvscope.modules/1",
        "engine": f"vllm-{vllm.__version__}",
        "modules": survey.modules,
        "architectures": survey.architectures,
    }
    Path(out).write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(survey.architectures)} architectures, {len(survey.modules)} module classes", file=sys.stderr)
    for text, why in survey.failed.items():
        print(f"not surveyed: {text}: {why[:200]}", file=sys.stderr)


if __name__ == "__main__":
    main()
