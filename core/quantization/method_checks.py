"""What each quantization method of vLLM 0.33.0 demands of its dict: one small check per method.

A check returns the :class:`Fault` vLLM's ``from_config`` would raise, or None. Only what the dict alone decides is
here; kernels, GPUs and layer shapes are not. The messages are vLLM's own, since its users see them.
Source: vLLM 0.33.0, ``model_executor/layers/quantization/<method>``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from core.quantization.declaration import Declaration
from core.quantization.fault import Fault, Version
from core.quantization.method import MODELOPT_METHODS
from core.quantization.modelopt import check_modelopt

_ONLINE_METHODS = (
    "online", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "int8_per_channel_weight_only", "nvfp4_per_token",
)  # fmt: skip


def check_method(declaration: Declaration, version: Version) -> Fault | None:
    """The fault of the declaration's own method, None when vLLM accepts its dict."""
    method = declaration.method
    online = method == "mxfp8" and version < (0, 25)  # a checkpoint's own mxfp8 is read since 0.25
    if method in MODELOPT_METHODS and not online:
        return check_modelopt(declaration)
    if method in _ONLINE_METHODS or online:
        return Fault(
            "NotImplementedError",
            "OnlineQuantizationConfig does not support loading from a checkpoint config. Use quantization_config or "
            "quantization='fp8_per_tensor'/'fp8_per_block' instead.",
            "quant_method",
        )
    check = _CHECKS.get(method or "")
    return check(declaration.config, version) if check else None


def _missing(config: Mapping[str, Any], *alternatives: Sequence[str]) -> Fault | None:
    for keys in alternatives:
        if not any(key in config for key in keys):
            message = f"Cannot find any of {list(keys)} in the model's quantization config."
            return Fault("ValueError", message, keys[0])
    return None


# --------------------------------------------------------------------------------------------------- compressed-tensors


def _compressed_tensors(config: Mapping[str, Any], version: Version) -> Fault | None:
    groups = config.get("config_groups")
    for name, group in groups.items() if isinstance(groups, Mapping) else ():
        if fault := _config_group(group if isinstance(group, Mapping) else {}, f"config_groups.{name}", config):
            # Older releases run group activation ordering; when between 0.27 and 0.33 they stopped is not known.
            if fault.field.endswith("actorder") and version < (0, 33):
                continue
            return fault
    sparsity = config.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("targets"):
        return Fault(
            "DeprecationWarning",
            "Sparsity support has been removed from compressed-tensors. Please use a model without sparsity "
            "configuration.",
            "sparsity_config.targets",
        )
    return None


def _config_group(group: Mapping[str, Any], path: str, config: Mapping[str, Any]) -> Fault | None:
    targets = group.get("targets")
    if not isinstance(targets, list):
        return Fault("KeyError", "'targets'", f"{path}.targets") if targets is None else None
    if len(targets) == 1 and str(targets[0]).endswith("Attention"):
        return None  # vLLM skips groups that quantize one attention class: the KV scheme stands for them
    if not targets:
        return None
    weights = group.get("weights")
    if not isinstance(weights, Mapping):
        # pydantic's error passes through as it is
        message = "Input should be a valid dictionary or instance of QuantizationArgs"
        return Fault("ValidationError", message, f"{path}.weights")
    order = weights.get("actorder")
    if order is True or str(order).lower() in ("group", "dynamic"):
        return Fault(
            "ValueError",
            "Compressed-tensors group/dynamic activation ordering (actorder='group') is no longer supported. Use a "
            "checkpoint with static/weight activation ordering or without activation ordering.",
            f"{path}.weights.actorder",
        )
    formats = ("naive-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized")
    quantizes_inputs = (group.get("format") or config.get("format")) in formats
    if quantizes_inputs and not group.get("input_activations") and weights.get("type", "int") != "float":
        return Fault("AssertionError", "", f"{path}.input_activations")
    return None


# --------------------------------------------------------------------------------------------------------------- others


def _quark(config: Mapping[str, Any], _version: Version) -> Fault | None:
    export = config.get("export")
    if not isinstance(export, Mapping):
        message = "The export key should be included in the configurations of Quark quantized model"
        return Fault("ValueError", message, "export")
    group = export.get("kv_cache_group")
    if not isinstance(group, (list, tuple, str, Mapping)):
        message = f"object of type '{type(group).__name__}' has no len()"
        return Fault("TypeError", message, "export.kv_cache_group")
    if not group:
        return None
    layers = config.get("layer_quant_config")
    layers = layers if isinstance(layers, Mapping) else {}
    specs = [
        entry.get("output_tensors") if isinstance(entry, Mapping) else None
        for name, entry in layers.items()
        if any(fnmatchcase(str(name), str(pattern)) for pattern in group)
    ]
    if not specs:
        return Fault(
            "ValueError",
            "The Quark quantized model has the kv_cache_group parameter setting, but no kv_cache quantization settings "
            "were found in the quantization configuration.",
            "layer_quant_config",
        )
    if any(spec != specs[0] for spec in specs):
        return Fault(
            "ValueError",
            "The quantization method used for kv_cache should be the same, but the quantization method for the "
            "kv_cache layer in the config is different.",
            "layer_quant_config",
        )
    if specs[0] is None:
        return Fault("ValueError", "The kv_cache quantization configuration is empty.", "layer_quant_config")
    return None


def quark_kv_spec(config: Mapping[str, Any]) -> Any:
    """The output specification vLLM's Quark config takes for the KV cache; None when kv_cache_group is empty."""
    export = config.get("export")
    group = export.get("kv_cache_group") if isinstance(export, Mapping) else None
    layers = config.get("layer_quant_config")
    patterns = [str(pattern) for pattern in group or ()]
    for name, entry in layers.items() if isinstance(layers, Mapping) else ():
        if isinstance(entry, Mapping) and any(fnmatchcase(str(name), pattern) for pattern in patterns):
            return entry.get("output_tensors")
    return None


def _fp8(config: Mapping[str, Any], _version: Version) -> Fault | None:
    if fault := _missing(config, ["activation_scheme"]):
        return fault
    scheme, block = config["activation_scheme"], config.get("weight_block_size")
    if scheme not in ("static", "dynamic"):
        return Fault("ValueError", f"Unsupported activation scheme {scheme}", "activation_scheme")
    if not isinstance(block, list):
        return None
    if len(block) != 2:
        message = f"The quantization block size of weight must have 2 dimensions, but got {len(block)} dimensions"
        return Fault("ValueError", message, "weight_block_size")
    if scheme != "dynamic":
        message = (
            "The block-wise quantization only supports dynamic activation scheme for now, but got "
            f"{scheme} activation scheme."
        )
        return Fault("ValueError", message, "activation_scheme")
    return None


def _gptq(config: Mapping[str, Any], version: Version) -> Fault | None:
    if fault := _missing(config, ["bits"], ["group_size"], ["desc_act"], ["sym"]):
        return fault
    if config["desc_act"] and config["group_size"] != -1:
        message = (
            "GPTQ group activation ordering (desc_act=True) is no longer supported. Use a checkpoint with static "
            "activation ordering or desc_act=False."
        )
        return Fault("ValueError", message, "desc_act") if version >= (0, 33) else None
    if config["bits"] not in (4, 8) or not config["sym"]:
        message = f"Unsupported quantization config: bits={config['bits']}, sym={config['sym']}"
        return Fault("ValueError", message, "bits")
    return None


def _awq(config: Mapping[str, Any], _version: Version) -> Fault | None:
    if fault := _missing(config, ["w_bit", "bits"], ["q_group_size", "group_size"], ["zero_point"]):
        return fault
    bits = config.get("w_bit", config.get("bits"))
    if bits != 4:
        message = (
            f"Unsupported num_bits = {bits}. Supported: 4. For 8-bit AWQ, use Marlin backend by setting "
            "backend='awq:marlin' or backend='marlin'."
        )
        return Fault("ValueError", message, "bits")
    return None


_INC_FORMATS = ("auto_round:auto_gptq", "auto_round:auto_awq", "auto_round:fp8", "auto_round:llm_compressor")
_INC_BACKENDS = ("auto", "gptq", "gptq:marlin", "awq", "awq:marlin", "marlin")


def _inc(config: Mapping[str, Any], version: Version) -> Fault | None:
    if fault := _missing(config, ["bits"], ["group_size"]):
        return fault
    data_type = str(config.get("data_type", "int"))
    data_type = "fp" if data_type == "fp8" else data_type
    bits, packing = config["bits"], config.get("packing_format")
    backend = config.get("backend", config.get("vllm_backend", "auto"))
    types = ("int",) if version < (0, 27) else ("int", "mx_fp") if version < (0, 33) else ("int", "mx_fp", "fp")
    known = data_type in types or ("mx_fp" in types and "mx_fp" in data_type)
    for name, value, accepted, valid in (
        ("weight_bits", bits, (2, 3, 4, 5, 6, 7, 8), bits in (2, 3, 4, 5, 6, 7, 8)),
        ("data_type", data_type, types, known),
        ("packing_format", packing, _INC_FORMATS, packing is None or packing in _INC_FORMATS),
        ("backend", backend, _INC_BACKENDS, backend in _INC_BACKENDS),
    ):
        if not valid:
            message = f"Unsupported {name}: {value}, currently only support {set_text(accepted)}"
            return Fault("ValueError", message, "bits" if name == "weight_bits" else name)
    return _inc_layout(config, data_type, version)


def set_text(values: Sequence[Any]) -> str:
    """A set as Python prints it; vLLM prints a real one, whose order differs from run to run."""
    return "{" + ", ".join(repr(value) for value in values) + "}."


def _inc_layout(config: Mapping[str, Any], data_type: str, version: Version) -> Fault | None:
    size, packing = config["group_size"], config.get("packing_format")
    blockwise = isinstance(size, (list, tuple))
    if data_type == "int" and blockwise and version >= (0, 33):  # 0.27.1 and older take it
        message = f"INC int quantization requires scalar group_size, but found group_size={tuple(size)!r}."
        return Fault("AssertionError", message, "group_size")
    if data_type == "int" and packing in ("auto_round:fp8", "auto_round:llm_compressor"):
        accepted = ["auto_round:auto_awq", "auto_round:auto_gptq"]
        message = (
            f"INC int quantization only supports packing_format in {accepted!r}, but found packing_format={packing!r}."
        )
        return Fault("AssertionError", message, "packing_format")
    if data_type == "fp" and not blockwise:
        message = f"INC block-wise FP8 requires a 2-D group_size, but found group_size={size!r}."
        return Fault("AssertionError", message, "group_size")
    return None


_CHECKS: dict[str, Callable[[Mapping[str, Any], Version], Fault | None]] = {
    "compressed-tensors": _compressed_tensors,
    "quark": _quark,
    "fp8": _fp8,
    "deepseek_v4_fp8": _fp8,
    "auto_gptq": _gptq,
    "gptq": _gptq,
    "auto_awq": _awq,
    "awq": _awq,
    "inc": _inc,
}
