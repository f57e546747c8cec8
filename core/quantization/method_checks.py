"""What each quantization method of vLLM 0.33.0 demands of its dict: one small check per method.

A check returns the :class:`Fault` vLLM's ``from_config`` would raise, or None. Only what the dict alone decides is
here; kernels, GPUs and layer shapes are not. The messages are vLLM's own, since its users see them.
Source: vLLM 0.33.0, ``model_executor/layers/quantization/<method>``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from core.quantization.compressed_args import check_arguments, orders_by_group
from core.quantization.declaration import Declaration
from core.quantization.fault import Fault, Version, no_attribute, no_item, no_length, not_hashable
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
    groups = config.get("config_groups", {})
    if not isinstance(groups, Mapping):
        return no_attribute(groups, "items", "config_groups")
    fields = {f"config_groups.{name}": group for name, group in groups.items()}
    for field, group in fields.items():  # vLLM asks all of them for their targets before it reads one
        if fault := _targets(group, field):
            return fault
    for field, group in fields.items():
        if fault := _config_group(group, field, config, version):
            return fault
    return _sparsity(config.get("sparsity_config")) or _transforms(config.get("transform_config"))


def _transforms(transforms: Any) -> Fault | None:
    """``TransformConfig``: groups of rotations, and nothing beside them; what a group holds is not looked at here."""
    if not transforms:
        return None
    if not isinstance(transforms, Mapping):
        message = "Input should be a valid dictionary or instance of TransformConfig"
        return Fault("ValidationError", message, "transform_config")
    if not isinstance(transforms.get("config_groups"), Mapping):
        return Fault("ValidationError", "Field required", "transform_config.config_groups")
    for name in transforms:
        if name != "config_groups":
            return Fault("ValidationError", "Extra inputs are not permitted", f"transform_config.{name}")
    return None


def _sparsity(sparsity: Any) -> Fault | None:
    if not sparsity:
        return None
    if not isinstance(sparsity, Mapping):
        message = "Input should be a valid dictionary or instance of SparsityCompressionConfig"
        return Fault("ValidationError", message, "sparsity_config")
    if not isinstance(sparsity.get("format"), str):
        return Fault("ValidationError", "Input should be a valid string", "sparsity_config.format")
    if sparsity.get("targets"):
        return Fault(
            "DeprecationWarning",
            "Sparsity support has been removed from compressed-tensors. Please use a model without sparsity "
            "configuration.",
            "sparsity_config.targets",
        )
    return None


def _targets(group: Any, field: str) -> Fault | None:
    """Asked of every group first: one that quantizes a single attention class is skipped, as the KV scheme has it."""
    if fault := no_item(group, "targets", field):
        return fault
    targets = group["targets"]
    if not isinstance(targets, list | str | Mapping):
        return no_length(targets, f"{field}.targets")
    if len(targets) != 1:
        return None
    if isinstance(targets, Mapping):
        return Fault("KeyError", "0", f"{field}.targets")
    return None if isinstance(targets[0], str) else no_attribute(targets[0], "endswith", f"{field}.targets")


def _config_group(group: Mapping[str, Any], field: str, config: Mapping[str, Any], version: Version) -> Fault | None:
    targets = group["targets"]
    for target in targets:
        if isinstance(target, list | Mapping):
            return not_hashable(target, f"{field}.targets")
    if not targets or (len(targets) == 1 and targets[0].endswith("Attention")):
        return None
    weights = group.get("weights")
    if fault := check_arguments(weights, f"{field}.weights"):
        return fault
    # Older releases run group activation ordering; when between 0.27 and 0.33 they stopped is not known.
    if isinstance(weights, Mapping) and orders_by_group(weights) and version >= (0, 33):
        return Fault(
            "ValueError",
            "Compressed-tensors group/dynamic activation ordering (actorder='group') is no longer supported. Use a "
            "checkpoint with static/weight activation ordering or without activation ordering.",
            f"{field}.weights.actorder",
        )
    formats = ("naive-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized")
    written = group.get("format")
    quantizes_inputs = (written if written is not None else config.get("format")) in formats
    inputs, outputs = group.get("input_activations"), group.get("output_activations")
    if inputs:
        if fault := check_arguments(inputs, f"{field}.input_activations"):
            return fault
    elif quantizes_inputs and isinstance(weights, Mapping) and str(weights.get("type", "int")).lower() != "float":
        return Fault("AssertionError", "", f"{field}.input_activations")
    return check_arguments(outputs, f"{field}.output_activations") if outputs else None


# --------------------------------------------------------------------------------------------------------------- others


def _quark(config: Mapping[str, Any], _version: Version) -> Fault | None:
    export = config.get("export")
    if export is None:
        message = "The export key should be included in the configurations of Quark quantized model"
        return Fault("ValueError", message, "export")
    if not isinstance(export, Mapping):
        return no_attribute(export, "get", "export")
    group = export.get("kv_cache_group")
    if not isinstance(group, list | str | Mapping):
        return no_length(group, "export.kv_cache_group")
    if not group:
        return None
    for pattern in group:
        if isinstance(pattern, list | Mapping):
            return not_hashable(pattern, "export.kv_cache_group")
    layers = config.get("layer_quant_config")
    if not isinstance(layers, Mapping):
        return no_attribute(layers, "keys", "layer_quant_config")
    for pattern in group if layers else ():
        if not isinstance(pattern, str):
            return no_length(pattern, "export.kv_cache_group")
    entries = {name: entry for name, entry in layers.items() if any(fnmatchcase(name, pattern) for pattern in group)}
    if not entries:
        return Fault(
            "ValueError",
            "The Quark quantized model has the kv_cache_group parameter setting, but no kv_cache quantization settings "
            "were found in the quantization configuration.",
            "layer_quant_config",
        )
    return _quark_specs(entries)


def _quark_specs(entries: Mapping[str, Any]) -> Fault | None:
    """The entries' output settings, which vLLM compares one after the other with the first."""
    specs: list[Any] = []
    for name, entry in entries.items():
        if fault := no_item(entry, "output_tensors", f"layer_quant_config.{name}"):
            return fault
        specs.append(entry["output_tensors"])
        try:
            alike = same_settings(specs[-1], specs[0])
        except IndexError:
            return Fault("IndexError", "list index out of range", f"layer_quant_config.{name}.output_tensors")
        if not alike:
            return Fault(
                "ValueError",
                "The quantization method used for kv_cache should be the same, but the quantization method for the "
                "kv_cache layer in the config is different.",
                "layer_quant_config",
            )
    if specs[0] is None:
        return Fault("ValueError", "The kv_cache quantization configuration is empty.", "layer_quant_config")
    return None


def same_settings(one: Any, other: Any) -> bool:
    """Quark's ``deep_compare``: types count too, and of two lists the first decides the length.

    Raises:
        IndexError: a list that is longer than its counterpart, as in vLLM.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same_settings(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return all(same_settings(each, other[place]) for place, each in enumerate(one))
    return bool(one == other)


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
    if fault := _not_packed(config["bits"], "bits"):
        return fault
    if isinstance(config["sym"], list | Mapping):
        return not_hashable(config["sym"], "sym")
    if config["bits"] not in (4, 8) or config["sym"] != True:  # noqa: E712 - a 1 is taken, another true value is not
        message = f"Unsupported quantization config: bits={config['bits']}, sym={config['sym']}"
        return Fault("ValueError", message, "bits")
    return None


def _not_packed(bits: Any, field: str) -> Fault | None:
    """What Python says where 32 is divided by what is no number."""
    if not isinstance(bits, int | float):
        message = f"unsupported operand type(s) for //: 'int' and '{type(bits).__name__}'"
        return Fault("TypeError", message, field)
    return None if bits else Fault("ZeroDivisionError", "integer division or modulo by zero", field)


def _awq(config: Mapping[str, Any], _version: Version) -> Fault | None:
    if fault := _missing(config, ["w_bit", "bits"], ["q_group_size", "group_size"], ["zero_point"]):
        return fault
    name = "w_bit" if "w_bit" in config else "bits"
    bits = config[name]
    if fault := _not_packed(bits, name):
        return fault
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
