"""SGLang 0.5.23: agreement with what the real engine did, and every rule by itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.backends.kv_method import CacheSetup, EngineError
from core.engines import Fed, Wish, get_engine
from core.engines.outcome import Deliveries
from core.engines.sglang.helper import maybe_remap_kv_scale_name
from core.engines.sglang.kv_method import SglangKVCacheMethod
from core.engines.sglang.models import architectures, build_layers, kinds_of, load_loops
from core.engines.sglang.predict import Model
from core.engines.sglang.quantization import resolve
from core.engines.sglang.steps import Call, Take, parse_steps
from core.engines.sglang.walk import Loop, Walk
from core.errors import UsageError
from core.inspection import inspect
from core.naming.mapper import WeightsMapper
from core.quantization.declaration import Declaration
from core.report import report
from tests.golden_data import NOT_THE_ENGINE, disagreement, golden, write_case

ENGINE = "sglang-0.5.23"
NOT_SGLANG = re.compile(rf"{NOT_THE_ENGINE.pattern}|AmbiguousGlobal|has no SGlang implem")
"""Refusals of the golden run that are no verdicts: also classes of transformers, and models SGLang does not have."""

Record = Callable[[str, int, int], None]


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    def keep(what: str, agreed: int, total: int) -> None:
        record_property("agreement", f"{ENGINE} {what}: {agreed} of {total} agree = {100 * agreed / total:.2f} %")

    return keep


# ------------------------------------------------------------------------------------------------- the real engine
def test_names_through_the_helper(record: Record) -> None:
    data = golden(ENGINE, "names")
    wanted = {**data["renamed"]["llama_like"], **data["if_any_parameter_existed"]}
    results = get_engine(ENGINE).map_names(data["names"], method="fp8", architecture=None)
    wrong = [each.name for each in results if each.result != wanted.get(each.name, each.name)]
    record("names", len(results) - len(wrong), len(results))
    assert len(results) > 8000
    assert wrong == []


def test_cases(tmp_path: Path, record: Record) -> None:
    inputs = golden("vllm-0.33.0", "cases")
    misses, total = [], 0
    for name, case in golden(ENGINE, "cases")["cases"].items():
        if NOT_SGLANG.search(case["outcome"].get("refused", "")):
            continue
        total += 1
        given = inputs["cases"][name]
        folder = write_case(tmp_path / name, inputs["configs"][given["config"]], given["tensors"])
        found = inspect(folder, engine=ENGINE, kv_cache_dtype=case["kv_cache_dtype"], dtype="bfloat16")
        if why := disagreement(case["outcome"], report(found, explained=False)):
            misses.append(f"{name}: {why}")
    record("cases", total - len(misses), total)
    assert total > 800
    assert misses == []


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8_e4m3"])
@pytest.mark.parametrize("tool", ["llmcompressor", "modelopt", "quark"])
def test_deliveries(tool: str, kv_cache_dtype: str, shared: Path, record: Record) -> None:
    truth = json.loads((shared / f"golden/{ENGINE}/deliveries/{tool}.{kv_cache_dtype}.json").read_text())
    misses, total = [], 0
    for name, outcome in truth.items():
        if NOT_SGLANG.search(outcome.get("refused", "")):
            continue
        total += 1
        path = shared / "checkpoints" / tool / name
        found = inspect(path, engine=ENGINE, kv_cache_dtype=kv_cache_dtype, dtype="bfloat16")
        if why := disagreement(outcome, report(found, explained=False)):
            misses.append(f"{name}: {why}")
    record(f"deliveries, {tool}, cache {kv_cache_dtype}", total - len(misses), total)
    assert total > 20
    assert misses == []


def fp8_model(architecture: str, config: Mapping[str, Any]) -> Model:
    kinds = kinds_of(config)
    return Model(
        architecture=architectures()[architecture],
        config=config,
        kinds=kinds,
        counted=bool(kinds),
        kv_method="Fp8KVCacheMethod",
        cache=CacheSetup(dtype="fp8_e4m3", quantized=True),
        quantization="Fp8Config",
    )


def test_load_loops_of_the_real_models(record: Record) -> None:
    """Every model that could be built on a CPU, name by name: 65,000 names in 77 architectures."""
    misses, total = [], 0
    for name, real in golden(ENGINE, "models")["models"].items():
        model = fp8_model(name, real["config"])
        assert {layer.path: layer.quantized for layer in model.layers} == real["attention"], name
        assert model.architecture.auto_cache == real["keeps_quant_config"], name
        walk = model.walk()
        truth: dict[str, tuple[str | None, str | None]] = dict.fromkeys(real["nothing"], (None, None))
        truth |= {key: (None, error) for key, error in real["raises"].items()}
        truth |= {key: (parameter, None) for key, parameter in real["takes"].items()}
        total += len(truth)
        for key, wanted in truth.items():
            arrival = walk.follow(key, (0.5,))
            found = (arrival.parameter, arrival.error.kind if arrival.error is not None else None)
            if found != wanted:
                misses.append(f"{name} {key}: {wanted}, predicted {found}")
    record("names in the load loops of real models", total - len(misses), total)
    assert total > 60_000
    assert misses == []


def test_methods_of_the_real_engine(record: Record) -> None:
    """Made-up quantization dicts: the method, the attention layers' KV method, what auto becomes, or the refusal."""
    misses, rows = [], golden(ENGINE, "methods")["rows"]
    for number, row in enumerate(rows):
        declaration = Declaration(
            hf_config=row["config"], hf_quant_config=row["hf_quant_config"], architectures=("LlamaForCausalLM",)
        )
        found = resolve(declaration)
        error = found.refused or found.reading.refuses
        if "refused" in row or error is not None:
            wanted: object = row.get("refused")
            predicted: object = error.partition(":")[0] if error is not None else None
        else:
            wanted = (row["method"], row["kv"], "fp8_e4m3" if str(row["algo"]).upper() == "FP8" else "auto")
            predicted = (found.method, found.reading.kv_method, found.auto_dtype)
        if predicted != wanted:
            misses.append(f"{number}: {wanted}, predicted {predicted}")
    record("quantization dicts", len(rows) - len(misses), len(rows))
    assert len(rows) > 200
    assert misses == []


# ---------------------------------------------------------------------------------------------------------- the data
def test_every_loop_is_whole() -> None:
    """Each loop ends, each call leads somewhere, and each architecture's class has a loop."""
    loops = load_loops()
    for name, loop in loops.items():
        assert isinstance(loop.steps[-1], Take | Call), name
        assert all(step.loop in loops for step in loop.steps if isinstance(step, Call)), name
        assert loop.source.startswith("SGLang 0.5.23, models/"), name
    for name, architecture in architectures().items():
        assert architecture.loop in loops, name
        assert architecture.becomes is None or architecture.becomes in architectures(), name


@pytest.mark.parametrize("name", sorted(architectures()))
def test_every_architecture_has_attention(name: str) -> None:
    config = {"num_hidden_layers": 3, "encoder_layers": 2}
    layers = build_layers(architectures()[name], config, ("full_attention",) * 3)
    assert len(layers) >= 3
    assert len({layer.path for layer in layers}) == len(layers)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"jump": {}}, "no step 'jump'"),
        ({"skip": {"beginning": ["x"]}}, "no key beginning"),
        ({"take": "perhaps"}, "'perhaps' is none of raise, warn, skip"),
        ({"stacked": [["q_proj", "qkv_proj"]], "absent": "warn"}, "'warn' is none of raise, go on, skip"),
    ],
)
def test_a_misspelt_step_is_an_error(row: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_steps([row])


# -------------------------------------------------------------------------------------------------------- each step
def follow(steps: list[dict[str, Any]], name: str, parameters: set[str], **walk: Any) -> Any:
    loops = {"main": Loop(by="Model", source="models/model.py", steps=parse_steps(steps))}
    loops["other"] = Loop(by="Other", source="models/other.py", steps=parse_steps([{"take": "raise"}]))
    options: dict[str, Any] = {"layers": 2, "experts": lambda _fields: 4, **walk}
    values = options.pop("values", (0.5,))
    return Walk(loops=loops, root="main", exists=parameters.__contains__, **options).follow(name, values)


END: list[dict[str, Any]] = [{"take": "raise"}]


@pytest.mark.parametrize(
    ("steps", "name", "parameter"),
    [
        ([{"skip": {"containing": ["mtp"]}}], "mtp.k_scale", None),
        ([{"skip": {"starting": ["a."], "absent": True}}], "a.k_scale", "a.k_scale"),
        ([{"replace": ["x", "a"]}], "x.k_scale", "a.k_scale"),
        ([{"replace": ["x.", "a."], "at": "start"}], "x.k_scale", "a.k_scale"),
        ([{"replace": [".key", ".k_scale"], "at": "end"}], "a.key", "a.k_scale"),
        ([{"replace": ["x", "a"], "where": {"without": ["x"]}}, {"skip": {}}], "x.k_scale", None),
        ([{"regex": [r"^h\d", "a"]}], "h7.k_scale", "a.k_scale"),
        ([{"add": "a.", "where": {"not_starting": ["a."]}}], "k_scale", "a.k_scale"),
        ([{"layers": True}], "layers.2.k_scale", None),
        ([{"layers": True, "below": "model.layers"}], "model.layers.5.k_scale", None),
        ([{"remap": {}, "changed": "take"}], "a.self_attn.k_scale", "a.self_attn.attn.k_scale"),
        ([{"remap": {}, "changed": "end"}], "a.self_attn.k_scale", None),
        ([{"stacked": [["q_proj", "a"]], "absent": "skip"}], "q_proj.k_scale", "a.k_scale"),
        ([{"stacked": [["q_proj", "z"]], "absent": "skip"}], "q_proj.k_scale", None),
        ([{"stacked": [["a", "z"]], "absent": "go on", "keeps": True}], "a.k_scale", "a.k_scale"),
        ([{"stacked": [["a", "z"]], "absent": "raise", "unless": {"containing": ["a"]}}], "a.k_scale", "a.k_scale"),
        ([{"experts": ["g", "d", "u"], "count": ["n"], "absent": "skip"}], "experts.1.g.k_scale", None),
        ([{"one": {"ending": ["_scale"], "absent": True}}], "b.k_scale", None),
        ([{"call": "other", "strip": "m.", "below": "m.", "where": {"starting": ["m."]}}], "m.k_scale", "m.k_scale"),
    ],
)
def test_steps_that_decide(steps: list[dict[str, Any]], name: str, parameter: str | None) -> None:
    parameters = {"a.k_scale", "a.self_attn.attn.k_scale", "m.k_scale"}
    values = (1.0,) if "one" in steps[0] else (0.5,)
    arrival = follow([*steps, *END], name, parameters, values=values)
    assert arrival.error is None
    assert arrival.parameter == parameter
    assert parameter is not None or arrival.reason


@pytest.mark.parametrize(
    ("steps", "name", "error"),
    [
        (END, "b.k_scale", "KeyError: 'b.k_scale'"),
        ([{"stacked": [["k_proj", "qkv_proj"]], "absent": "raise"}], "k_proj.k_scale", "KeyError: 'qkv_proj.k_scale'"),
        (
            [{"experts": ["g", "d", "u"], "count": ["n"], "absent": "raise"}],
            "experts.3.d.output_scale",
            "KeyError: 'experts.w2_output_scale'",
        ),
        ([{"one": {}}], "b.k_scale", "AssertionError: Expected 1.0, got 0.5 in skipped b.k_scale"),
        ([{"raise": "ValueError: no", "where": {"starting": ["b"]}}], "b.k_scale", "ValueError: no"),
        ([{"cache scale": True}], "b.k_scale", "AttributeError: 'Fp8Config' object has no attribute 'get_cache_scale'"),
    ],
)
def test_steps_that_raise(steps: list[dict[str, Any]], name: str, error: str) -> None:
    arrival = follow([*steps, {"take": "skip"}] if steps is not END else END, name, set(), quantization="Fp8Config")
    assert str(arrival.error) == error
    assert arrival.reason


def test_an_expert_the_model_does_not_have_goes_on() -> None:
    steps: list[dict[str, Any]] = [{"experts": ["g", "d", "u"], "count": ["n"], "absent": "raise"}, {"take": "warn"}]
    assert follow(steps, "experts.9.g.output_scale", set()).warned
    assert follow(steps, "experts.9.g.output_scale", set(), experts=lambda _fields: None).error is not None


def test_compressed_tensors_names_cache_scales_itself() -> None:
    steps: list[dict[str, Any]] = [{"cache scale": True}, {"take": "warn"}]
    arrival = follow(steps, "a.k_proj.output_scale", {"a.attn.k_scale"}, quantization="CompressedTensorsConfig")
    assert arrival.parameter == "a.attn.k_scale"
    assert follow(steps, "a.k_scale", set(), quantization="CompressedTensorsConfig").warned
    assert follow(steps, "a.k_scale", set(), quantization=None).warned


# -------------------------------------------------------------------------------------------------------- the helper
@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("l.self_attn.kv_scale", "l.self_attn.attn.k_scale"),
        ("l.self_attn.k_proj.k_scale", "l.self_attn.attn.k_scale"),
        ("l.mixer.v_proj.v_scale", "l.mixer.attn.v_scale"),
        ("l.self_attn.v_scale", "l.self_attn.attn.v_scale"),
        ("l.self_attn.attn.k_scale", "l.self_attn.attn.attn.k_scale"),
        ("l.attention.k_proj.k_scale", "l.attention.k_proj.attn.k_scale"),
        ("l.self_attn.q_proj.output_scale", "l.self_attn.attn.q_scale"),
        ("l.self_attn.prob_output_scale", "l..attn.prob_scale"),
        ("l.self_attn.q_scale", "l.self_attn.q_scale"),
        ("l.self_attn.k_zero_point", "l.self_attn.k_zero_point"),
    ],
)
def test_the_helper(name: str, result: str) -> None:
    found = maybe_remap_kv_scale_name(name, lambda _: True)
    assert found.name == result
    assert (found.step is None) == (name == result)


def test_the_helper_leaves_out_what_does_not_exist_except_output_scales() -> None:
    absent = maybe_remap_kv_scale_name("l.self_attn.k_scale", lambda _: False)
    assert absent.name is None
    assert absent.step is not None
    assert absent.step.after == "l.self_attn.attn.k_scale"
    assert maybe_remap_kv_scale_name("l.k_proj.output_scale", lambda _: False).name == "l.attn.k_scale"


# ----------------------------------------------------------------------------------------------------- the KV method
NAN = math.nan


@pytest.mark.parametrize(
    ("k", "v", "final", "source"),
    [
        (0.5, 0.25, (0.5, 0.25), ("checkpoint", "checkpoint")),
        (None, None, (1.0, 1.0), ("default", "default")),
        (0.0, -2.0, (1.0, 1.0), ("forced", "forced")),
        (0.5, None, (0.5, 0.5), ("checkpoint", "duplicated")),
        (0.5, 0.0, (0.5, 0.5), ("checkpoint", "duplicated")),
        (0.5, NAN, (0.5, 0.5), ("checkpoint", "duplicated")),
        (math.inf, 0.5, (math.inf, 0.5), ("checkpoint", "checkpoint")),
        (None, 0.5, None, None),
        (0.0, 0.5, None, None),
        (NAN, 0.5, None, None),
        (NAN, None, None, None),
    ],
)
@pytest.mark.parametrize("fnuz", [False, True])
def test_what_loading_leaves(
    k: float | None, v: float | None, final: tuple[float, float] | None, source: tuple[str, str] | None, fnuz: bool
) -> None:
    method = SglangKVCacheMethod("Fp8KVCacheMethod")
    given = {"k_scale": k, "v_scale": v}
    held = {name: (-1.0 if value is None else value,) for name, value in given.items()}
    loaded = frozenset(name for name, value in given.items() if value is not None)
    cache = CacheSetup(dtype="auto", quantized=False, fnuz=fnuz)
    if final is None:
        with pytest.raises(EngineError, match="AssertionError"):
            method.process(held, loaded, cache)
        return
    done = method.process(held, loaded, cache)
    doubled = fnuz and source is not None and source[0] == "checkpoint"
    assert (done.final["k"], done.final["v"]) == tuple(value * (2.0 if doubled else 1.0) for value in final)
    assert (done.source["k"], done.source["v"]) == source
    assert (done.final["q"], done.final["prob"]) == (1.0, 1.0)


# ---------------------------------------------------------------------------------------------------------- methods
CT = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}},
}
FP8_SCHEME = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
QUARK: dict[str, Any] = {"quant_method": "quark", "export": {"kv_cache_group": [], "pack_method": "reorder"}}


def quark_kv(**spec: Any) -> dict[str, Any]:
    group = ["*k_proj", "*v_proj"]
    layers = {name: {"output_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", **spec}} for name in group}
    return {**QUARK, "export": {"kv_cache_group": group}, "layer_quant_config": layers}


@pytest.mark.parametrize(
    ("quantization", "method", "kv_method", "auto"),
    [
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", "Fp8KVCacheMethod", "auto"),
        (
            {"quant_method": "fp8", "activation_scheme": "dynamic", "kv_cache_quant_algo": "FP8"},
            "fp8",
            "Fp8KVCacheMethod",
            "fp8_e4m3",
        ),
        (QUARK, "quark", "QuarkKVCacheMethod", "auto"),
        (quark_kv(), "quark", "QuarkKVCacheMethod", "auto"),
        ({**CT, "kv_cache_scheme": FP8_SCHEME}, "compressed-tensors", "CompressedTensorsKVCacheMethod", "fp8_e4m3"),
        ({**CT, "kv_cache_scheme": {**FP8_SCHEME, "strategy": "attn_head"}}, "compressed-tensors", None, "auto"),
        ({**CT, "kv_cache_scheme": {**FP8_SCHEME, "dynamic": True}}, "compressed-tensors", None, "auto"),
        (CT, "compressed-tensors", None, "auto"),
        (
            {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
            "modelopt_fp8",
            "ModelOptFp8KVCacheMethod",
            "fp8_e4m3",
        ),
        (
            {"quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
            "modelopt_fp8",
            "ModelOptFp8KVCacheMethod",
            "fp8_e4m3",
        ),
        (
            {"quant_method": "modelopt", "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
            "modelopt_fp8",
            None,
            "auto",
        ),
        (
            {"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}},
            "modelopt_fp4",
            "ModelOptFp8KVCacheMethod",
            "auto",
        ),
        ({"quant_algo": "MXFP8", "kv_cache_quant_algo": "FP8"}, "mxfp8", "Fp8KVCacheMethod", "fp8_e4m3"),
        (
            {
                "quant_algo": "MIXED_PRECISION",
                "kv_cache_quant_algo": "FP8",
                "quantized_layers": {"a": {"quant_algo": "NVFP4"}},
            },
            "modelopt_mixed",
            "ModelOptFp8KVCacheMethod",
            "fp8_e4m3",
        ),
        ({"quant_algo": "MIXED_PRECISION"}, "w4afp8", None, "auto"),
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}, "awq_marlin", None, "auto"),
        ({"quant_method": "awq", "bits": 4, "group_size": 48, "zero_point": True}, "awq", None, "auto"),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True},
            "gptq_marlin",
            None,
            "auto",
        ),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": True}, "auto-round", None, "auto"),
    ],
)
def test_methods(quantization: dict[str, Any], method: str, kv_method: str | None, auto: str) -> None:
    found = resolve(Declaration(hf_config={"quantization_config": quantization}))
    assert found.refused is None
    assert (found.method, found.reading.kv_method, found.auto_dtype) == (method, kv_method, auto)


@pytest.mark.parametrize(
    ("quantization", "error"),
    [
        ({"quant_method": "torchao"}, "ValueError: Unknown quantization method: torchao"),
        ({"quant_method": "gptq", "bits": 3}, "ValueError: Unknown quantization method: gptq"),
        ({"quant_method": "fp8"}, "ValueError: Cannot find any of ['activation_scheme']"),
        ({"quant_method": "fp8", "activation_scheme": "lazy"}, "ValueError: Unsupported activation scheme lazy"),
        (
            {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": [128, 128]},
            "ValueError: The block-wise quantization only supports dynamic activation scheme",
        ),
        (
            {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128]},
            "ValueError: The quantization block size of weight must have 2 dimensions",
        ),
        ({"quant_method": "modelopt"}, "ValueError: Cannot find 'quant_algo'"),
        ({"quant_method": "modelopt", "quant_algo": None}, "AttributeError: 'NoneType' object has no attribute"),
        ({"quant_method": 8}, "AttributeError: 'int' object has no attribute 'lower'"),
        ({"quant_method": "quark"}, "ValueError: The export key should be included"),
        ({**QUARK, "export": {}}, "TypeError: object of type 'NoneType' has no len()"),
        ({**QUARK, "export": {"kv_cache_group": ["*k_proj"]}}, "ValueError: The Quark quantized model has the kv"),
        (
            {**quark_kv(), "layer_quant_config": {"*k_proj": {"output_tensors": {}}, "*v_proj": {}}},
            "ValueError: The quantization method used for kv_cache should be the same",
        ),
        (
            {**quark_kv(), "layer_quant_config": {"*k_proj": {}, "*v_proj": {}}},
            "ValueError: The kv_cache quantization configuration is empty",
        ),
        ({**CT, "config_groups": {"g": {"targets": ["Linear"], "weights": None}}}, "ValidationError: 1 validation"),
        ({**CT, "config_groups": {"g": {"targets": None, "weights": {}}}}, "TypeError: 'NoneType' object is not"),
        (
            {"quant_method": "auto-round", "bits": 8, "group_size": 1, "sym": True, "data_type": "fp"},
            "ValueError: Unsupported data_type: fp, currently only support {'int'}",
        ),
        (
            {"quant_method": "auto-round", "bits": 8, "group_size": 1, "sym": True, "packing_format": "x"},
            "ValueError: Unsupported packing_format: x, currently only support {'auto_round:auto_gptq', 'auto_round:a",
        ),
        ({"quant_method": "awq", "bits": 4}, "ValueError: Cannot find any of ['q_group_size', 'group_size']"),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": None},
            "ValueError: NVFP4 quantization requires group_size and exclude_modules",
        ),
        ({"quant_method": "modelopt", "quant_algo": "W4_FP4"}, "ValueError: ModelOpt currently only supports"),
        (
            {"quant_algo": "MIXED_PRECISION", "quant_method": "modelopt_mixed", "kv_cache_quant_algo": "FP8",
             "quantized_layers": {}},
            "ValueError: MIXED_PRECISION quantization requires a non-empty quantized_layers map",
        ),
    ],
)  # fmt: skip
def test_refusals(quantization: dict[str, Any], error: str) -> None:
    found = resolve(Declaration(hf_config={"quantization_config": quantization}))
    assert found.refused is not None
    assert found.refused.startswith(error)


@pytest.mark.parametrize(
    ("side", "error", "kv_method"),
    [
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, None, "ModelOptFp8KVCacheMethod"),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": None}, None, None),
        ({"quant_algo": "NVFP4", "group_size": 16}, None, "ModelOptFp8KVCacheMethod"),
        ({"quant_algo": "NVFP4"}, "ValueError: Cannot find 'quant_algo'", None),
    ],
)
def test_a_side_file_stands_in_for_config_json(side: dict[str, Any], error: str | None, kv_method: str | None) -> None:
    declaration = Declaration(hf_quant_config={"producer": {"name": "modelopt"}, "quantization": side})
    found = resolve(declaration)
    assert (found.refused or "").startswith(error or "")
    assert (found.refused is None) == (error is None)
    assert found.reading.kv_method == kv_method


# ------------------------------------------------------------------------------------------------------- the profile
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "torch_dtype": "bfloat16",
}
FP8 = {"quant_method": "fp8", "activation_scheme": "static"}


def deliver(
    config: Mapping[str, Any], quantization: Mapping[str, Any] | None, tensors: Mapping[str, Any], **wish: Any
) -> tuple[Deliveries, Any]:
    hf_config = {**config, **({"quantization_config": quantization} if quantization else {})}
    declaration = Declaration(
        method=str(quantization["quant_method"]) if quantization else None,
        hf_config=hf_config,
        text_config=config,
        architectures=tuple(config.get("architectures", ())),
        model_type=config.get("model_type"),
        torch_dtype=config.get("torch_dtype"),
        dialect=config.get("dialect", "huggingface"),
    )
    asked = Wish(**wish)
    engine = get_engine(ENGINE)
    fed = []
    for key, value in tensors.items():
        values = value if isinstance(value, tuple) else (value,)
        fed.append(Fed(key, () if len(values) == 1 else (len(values),), values))
    settings = engine.settle(declaration, asked)
    return engine.deliver(declaration, settings, fed, asked), settings


def k(spelling: str = "self_attn.k_scale") -> str:
    return f"model.layers.0.{spelling}"


def test_a_scale_that_arrives() -> None:
    result, settings = deliver(LLAMA, FP8, {k("self_attn.k_proj.k_scale"): 0.5, k("self_attn.q_scale"): 0.1})
    first, second = result.deliveries
    assert (first.outcome, first.target) == ("loaded", k("self_attn.attn.k_scale"))
    assert [step.by for step in first.steps] == ["LlamaForCausalLM"]
    assert (second.outcome, second.target) == ("dropped", None)
    assert "left out with a warning" in second.reason
    layer = result.attention[0]
    assert (layer.final["k"], layer.final["v"], layer.source["v"]) == (0.5, 0.5, "duplicated")
    assert settings.kv_cache_dtype_resolved == "auto"


def test_more_than_one_element_fails_the_load() -> None:
    result, _ = deliver(LLAMA, FP8, {k(): (0.5, 0.5), k("self_attn.v_scale"): 0.5})
    assert result.load.error == (
        "AssertionError: Attempted to load weight (torch.Size([2])) into parameter (torch.Size([]))"
    )
    assert result.load.key == k()
    assert [delivery.outcome for delivery in result.deliveries] == ["raises", "not_reached"]
    assert result.attention[0].final == {}


def test_v_alone_fails_after_loading() -> None:
    result, _ = deliver(LLAMA, FP8, {k("self_attn.v_scale"): 0.5})
    assert result.load.outcome == "loads"
    assert str(result.attention[0].error).startswith("AssertionError")


def test_without_a_kv_method_layers_run_at_one() -> None:
    awq = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
    result, settings = deliver(LLAMA, awq, {k(): 0.5})
    assert result.attention[0].parameters == {}
    assert result.attention[0].final["k"] == 1.0
    assert result.deliveries[0].outcome == "dropped"
    assert settings.method.value == "awq_marlin"


def test_mxfp4_is_refused_where_attention_is_quantized() -> None:
    refused, _ = deliver(LLAMA, {"quant_method": "mxfp4"}, {k(): 0.5})
    assert refused.load.error == "NotImplementedError: Mxfp4 attention layer is not implemented"
    fine, _ = deliver({**LLAMA, "architectures": ["Qwen3ForCausalLM"]}, {"quant_method": "mxfp4"}, {k(): 0.5})
    assert fine.load.outcome == "loads"


def test_quantized_mixtral_is_another_class() -> None:
    mixtral = {**LLAMA, "architectures": ["MixtralForCausalLM"], "num_local_experts": 2}
    name = k("self_attn.k_proj.k_scale")
    assert deliver(mixtral, FP8, {name: 0.5})[0].load.error == "KeyError: 'model.layers.0.self_attn.qkv_proj.k_scale'"
    assert deliver(mixtral, QUARK, {name: 0.5})[0].load.outcome == "loads"
    assert deliver(mixtral, None, {name: 0.5})[0].load.outcome == "raises"


def test_unknown_architectures_say_why() -> None:
    reasons = {
        name: deliver({**LLAMA, "architectures": names}, FP8, {k(): 0.5})[0].load.reason
        for name, names in (("none", []), ("registered", ["GlmOcrForConditionalGeneration"]), ("other", ["Nope"]))
    }
    assert reasons["none"] == "the checkpoint does not name its architecture"
    assert "has a model class for GlmOcrForConditionalGeneration" in reasons["registered"]
    assert "has no model class of its own for Nope" in reasons["other"]


def test_folders_of_other_engines() -> None:
    converted, _ = deliver({**LLAMA, "dialect": "tensorrt-llm"}, FP8, {k(): 0.5})
    assert converted.load.outcome == "refused"
    assert "model_type" in str(converted.load.error)
    mistral, _ = deliver({**LLAMA, "dialect": "mistral"}, FP8, {k(): 0.5})
    assert mistral.load.outcome == "unknown"


def test_a_method_chosen_against_the_configs_is_tried_and_told() -> None:
    result, settings = deliver(LLAMA, FP8, {k(): 0.5}, method="quark")
    assert settings.method.value == "quark"
    assert result.attention[0].kv_method == "QuarkKVCacheMethod"
    assert any("does not match the quantization method specified" in note for note in result.notes)
    agreeing, _ = deliver(LLAMA, FP8, {k(): 0.5}, method="fp8")
    assert agreeing.notes == ()


def test_notes_name_what_was_not_compared_and_what_does_not_count() -> None:
    dbrx = {**LLAMA, "architectures": ["DbrxForCausalLM"]}
    result, _ = deliver(dbrx, FP8, {}, rules=WeightsMapper())
    assert any("not compared with a run" in note for note in result.notes)
    assert any("takes no rules of an out-of-tree backend" in note for note in result.notes)


@pytest.mark.parametrize(
    ("asked", "quantization", "resolved"),
    [
        ("auto", FP8, "auto"),
        ("auto", {**CT, "kv_cache_scheme": FP8_SCHEME}, "fp8_e4m3"),
        ("fp8", FP8, "fp8_e4m3"),
        ("fp8_e5m2", FP8, "fp8_e5m2"),
        ("bf16", FP8, "bfloat16"),
    ],
)
def test_the_cache_dtype(asked: str, quantization: dict[str, Any], resolved: str) -> None:
    assert deliver(LLAMA, quantization, {}, kv_cache_dtype=asked)[1].kv_cache_dtype_resolved == resolved


def test_a_model_that_keeps_no_quant_config_stays_in_its_dtype() -> None:
    whisper = {**LLAMA, "architectures": ["WhisperForConditionalGeneration"], "encoder_layers": 1}
    _, settings = deliver(whisper, {**CT, "kv_cache_scheme": FP8_SCHEME}, {})
    assert settings.kv_cache_dtype_resolved == "auto"
    assert "keeps no quant_config" in settings.kv_cache_dtype.detail


@pytest.mark.parametrize(
    ("config", "served"),
    [
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float32"}, "float16"),
        ({"torch_dtype": "float32", "model_type": "gemma3"}, "bfloat16"),
        ({"torch_dtype": None}, "float16"),
    ],
)
def test_the_model_dtype(config: dict[str, Any], served: str) -> None:
    assert deliver({**LLAMA, **config}, FP8, {})[1].dtype.value == served


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"kv_cache_dtype": "int8"}, "SGLang 0.5.23 has no KV-cache dtype 'int8'"),
        ({"method": "torchao"}, "SGLang 0.5.23 has no quantization method 'torchao'"),
        ({"dtype": "float64"}, "SGLang 0.5.23 has no model dtype 'float64'"),
        ({"architecture": "Nope"}, "the architecture 'Nope' is not known for SGLang 0.5.23"),
    ],
)
def test_choices_that_do_not_exist(wish: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        deliver(LLAMA, FP8, {}, **wish)


def test_names_through_an_architecture() -> None:
    engine = get_engine(ENGINE)
    names = ["model.layers.0.self_attn.k_proj.k_scale", "model.layers.0.self_attn.q.scale"]
    first, second = engine.map_names(names, method=None, architecture="Qwen3NextForCausalLM")
    assert first.result == "model.layers.0.attn.k_scale"
    assert [step.by for step in first.steps] == ["Qwen3NextForCausalLM"] * 2
    assert second.result == "model.layers.0.q.scale"
    with pytest.raises(UsageError, match="'Nope' is not known"):
        engine.map_names(names, method=None, architecture="Nope")
