"""Agreement of the older profiles with what those vLLM versions did, and their regimes rule by rule."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.engines import ENGINES, Fed, Wish, get_engine
from core.engines.outcome import Deliveries
from core.engines.vllm.engine import Vllm
from core.engines.vllm.predict import predict
from core.errors import UsageError
from core.inspection import Inspection, inspect, reinspect
from core.naming.mapper import RuleKind, WeightsMapper, rules
from core.quantization.declaration import Declaration, Source
from core.report import report
from tests.core.quantization.test_real_vllm import RECORDED, declaration_of
from tests.golden_data import NOT_THE_ENGINE, disagreement, golden, write_case

Record = Callable[[str, object], None]
Keep = Callable[[str, int, int], None]

OLDER = ("vllm-0.27.1", "vllm-0.25.0", "vllm-0.23.0", "vllm-0.22.1")


@pytest.fixture
def record(record_property: Record) -> Keep:
    """Put "agrees n of m" into the run's summary."""

    def keep(what: str, agreed: int, total: int) -> None:
        record_property("agreement", f"{what}: {agreed} of {total} agree = {100 * agreed / total:.2f} %")

    return keep


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Inspection]:
    """The cases' checkpoints, read once for all versions."""
    data = golden("vllm-0.33.0", "cases")
    folder = tmp_path_factory.mktemp("cases")
    return {
        name: inspect(
            write_case(folder / name, data["configs"][case["config"]], case["tensors"]),
            kv_cache_dtype=case["kv_cache_dtype"],
            dtype="bfloat16",
        )
        for name, case in data["cases"].items()
    }


@pytest.mark.parametrize("engine", OLDER)
def test_cases(engine: str, opened: Mapping[str, Inspection], record: Keep) -> None:
    misses, total = [], 0
    for name, case in golden(engine, "cases")["cases"].items():
        if NOT_THE_ENGINE.search(case["outcome"].get("refused", "")):
            continue
        total += 1
        if why := disagreement(case["outcome"], report(reinspect(opened[name], engine=engine), explained=False)):
            misses.append(f"{name}: {why}")
    record(f"{engine} cases", total - len(misses), total)
    assert total > 800
    assert misses == []


@pytest.mark.parametrize("engine", OLDER)
def test_deliveries(engine: str, shared: Path, record: Keep) -> None:
    misses, total = [], 0
    for file in sorted((shared / "golden" / engine / "deliveries").iterdir()):
        tool, kv_cache_dtype, _ = file.name.split(".")
        for name, outcome in json.loads(file.read_text()).items():
            if NOT_THE_ENGINE.search(outcome.get("refused", "")):
                continue
            total += 1
            folder = shared / "checkpoints" / tool / name
            found = inspect(folder, engine=engine, kv_cache_dtype=kv_cache_dtype, dtype="bfloat16")
            if why := disagreement(outcome, report(found, explained=False)):
                misses.append(f"{tool}/{name} {kv_cache_dtype}: {why}")
    record(f"{engine} deliveries", total - len(misses), total)
    assert total > 200
    assert misses == []


@pytest.mark.parametrize("method", ["fp8", "quark", "modelopt", "compressed-tensors"])
def test_names_through_the_helpers_of_0_22(method: str, record: Keep) -> None:
    data = golden("vllm-0.22.1", "names")
    names = golden("vllm-0.33.0", "names")["names"]
    known = next(called for called, methods in data["methods"].items() if method in methods)
    scales, candidates = data["get_cache_scale"][known], data["candidate"]
    found = get_engine("vllm-0.22.1").map_names(names, method=method, architecture=None)
    wrong = [each.name for each in found if each.result != scales.get(each.name, candidates.get(each.name, each.name))]
    record(f"vllm-0.22.1 names, {method}", len(found) - len(wrong), len(found))
    assert wrong == []


def test_names_of_a_model_with_mla() -> None:
    differing = golden("vllm-0.22.1", "names")["candidate_mla_differs"]
    engine = get_engine("vllm-0.22.1")
    found = engine.map_names(list(differing), method="modelopt", architecture="DeepseekV3ForCausalLM")
    assert {each.name: each.result for each in found} == differing


@pytest.mark.parametrize("engine", OLDER)
def test_real_models(engine: str, record: Keep) -> None:
    """Real models of that version, one tensor at a time: the parameter it reached, or the exception."""
    profile = get_engine(engine)
    assert isinstance(profile, Vllm)
    total, misses = 0, []
    for model in golden(engine, "models")["models"]:
        quantization = model["config"]["quantization_config"]
        declaration = declared(model["config"], quantization, quantization["quant_method"])
        asked = Wish(kv_cache_dtype="fp8", dtype="bfloat16")
        every = [Fed(name, tuple(shape), ()) for name, shape, _ in model["tensors"]]
        setup = profile.setup(declaration, profile.settle(declaration, asked), every, asked)
        assert setup is not None
        for name, shape, truth in model["tensors"]:
            values = tuple((index + 1) / 64 for index in range(math.prod(shape)))
            delivery = predict(setup, [Fed(name, tuple(shape), values)]).deliveries[0]
            found = delivery.error.partition(":")[0] if delivery.error else delivery.target
            total += 1
            if found != truth:
                architecture = model["config"]["architectures"][0]
                misses.append(f"{architecture} {declaration.method} {name} {shape}: {truth} / {found}")
    record(f"{engine} names given to real models", total - len(misses), total)
    assert total > 5000
    assert misses == []


@pytest.mark.parametrize("engine", OLDER)
def test_config_files(engine: str, record: Keep) -> None:
    """What that version made of config files: refused, or the KV-cache dtype and whether layers take scales."""
    profile = get_engine(engine)
    cases = golden(engine, "configs")["cases"]
    misses = []
    for case, truth in cases.items():
        name, _, kv_cache_dtype = case.partition("|")
        declaration = declaration_of(RECORDED["cases"][name])
        asked = Wish(kv_cache_dtype=kv_cache_dtype, dtype="bfloat16")
        settings = profile.settle(declaration, asked)
        found = profile.deliver(declaration, settings, [], asked)
        answer: dict[str, Any] = {
            "resolved": [settings.kv_cache_dtype_resolved],
            "kv_method": any(layer.kv_method for layer in found.attention),
        }
        if found.load.outcome == "refused":
            answer = {"refused": str(found.load.error).partition(":")[0]}
        if answer != truth:
            misses.append(f"{case}: {truth} / {answer}")
    record(f"{engine} config files", len(cases) - len(misses), len(cases))
    assert len(cases) > 200
    assert misses == []


# ------------------------------------------------------------------------------------------------------ rule by rule
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
}
METHODS: dict[str, dict[str, Any]] = {
    "modelopt": {"quant_method": "modelopt", "quant_algo": "FP8"},
    "quark": {"quant_method": "quark", "export": {"kv_cache_group": [], "pack_method": "reorder"}, "exclude": []},
    "fp8": {"quant_method": "fp8", "activation_scheme": "static"},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "config_groups": {},
        "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True},
    },
}


def declared(config: Mapping[str, Any], quantization: Mapping[str, Any] | None, method: str | None) -> Declaration:
    source = Source("config.json", "quantization_config", quantization)
    return Declaration(
        method=method,
        config=quantization or {},
        config_source=source if quantization is not None else None,
        hf_config=config,
        text_config=config,
        architectures=tuple(config["architectures"]),
        model_type=config.get("model_type"),
        torch_dtype=config.get("torch_dtype"),
        dialect="huggingface",
    )


def deliver(
    engine: str,
    method: str,
    tensors: Mapping[str, Any],
    *,
    model: str = "LlamaForCausalLM",
    module: str = "model.layers.0.self_attn",
    **wish: Any,
) -> Deliveries:
    profile = get_engine(engine)
    declaration = declared({**LLAMA, "architectures": [model]}, METHODS[method], method)
    asked = Wish(**{"kv_cache_dtype": "fp8", **wish})
    fed = [
        Fed(f"{module}.{name}", (len(values),) if isinstance(values, tuple) else (), _tuple(values))
        for name, values in tensors.items()
    ]
    return profile.deliver(declaration, profile.settle(declaration, asked), fed, asked)


def _tuple(values: Any) -> tuple[float, ...]:
    return values if isinstance(values, tuple) else (values,)


def ends(engine: str, method: str, name: str, value: Any = 0.5, **more: Any) -> str:
    """The leaf of the parameter one tensor reaches, the exception it raises, or how it is left out."""
    delivery = deliver(engine, method, {name: value}, **more).deliveries[0]
    if delivery.error:
        return delivery.error.partition(":")[0]
    return delivery.target.removeprefix("model.layers.0.self_attn.") if delivery.target else delivery.outcome


@pytest.mark.parametrize(
    ("model", "method", "name", "expected"),
    [
        # from old to new: 0.22.1, 0.23.0, 0.25.0, 0.27.1, 0.33.0
        ("LlamaForCausalLM", "modelopt", "k_proj.k_scale", ("attn.k_scale",) * 5),
        ("LlamaForCausalLM", "modelopt", "attn.k_scale", ("dropped", *("attn.k_scale",) * 4)),
        ("Qwen2ForCausalLM", "modelopt", "k_proj.k_scale", ("attn.k_scale", "TypeError", *("attn.k_scale",) * 3)),
        ("MixtralForCausalLM", "modelopt", "k_proj.k_scale", ("AttributeError", "TypeError", *("attn.k_scale",) * 3)),
        ("Gemma3ForCausalLM", "quark", "k_proj.output_scale", ("IndexError", "attn.k_scale", *("AttributeError",) * 3)),
    ],
)
def test_one_name_in_five_versions(model: str, method: str, name: str, expected: tuple[str, ...]) -> None:
    versions = (*reversed(OLDER), "vllm-0.33.0")
    assert tuple(ends(version, method, name, model=model) for version in versions) == expected


@pytest.mark.parametrize(
    ("model", "method", "module", "expected"),
    [
        ("OPTForCausalLM", "modelopt", "model.decoder.layers.0.self_attn", ("KeyError", "KeyError", *("loads",) * 3)),
        ("GptOssForCausalLM", "compressed-tensors", "model.layers.0.self_attn", ("drops", "drops", *("loads",) * 3)),
        ("Qwen3ForCausalLM", "modelopt", "model.layers.0.self_attn", ("loads", "TypeError", *("loads",) * 3)),
        ("DeepseekV3ForCausalLM", "modelopt", "model.layers.0.self_attn", ("loads", "loads", *("drops",) * 3)),
    ],
)
def test_one_checkpoint_in_five_versions(model: str, method: str, module: str, expected: tuple[str, ...]) -> None:
    name = "k_scale" if method == "compressed-tensors" else "k_proj.k_scale"
    found = []
    for version in (*reversed(OLDER), "vllm-0.33.0"):
        delivery = deliver(version, method, {name: 0.5}, model=model, module=module).deliveries[0]
        error = (delivery.error or "").partition(":")[0]
        found.append(error or ("loads" if delivery.outcome == "loaded" else "drops"))
    assert tuple(found) == expected


@pytest.mark.parametrize(
    ("engine", "expected"),
    [("vllm-0.22.1", "attn.k_scale"), ("vllm-0.23.0", "ValueError"), ("vllm-0.25.0", "ValueError")],
)
def test_a_scale_for_each_channel(engine: str, expected: str) -> None:
    assert ends(engine, "fp8", "k_proj.output_scale", (0.25, 0.5, 0.75)) == expected


def test_before_0_23_only_the_first_element_of_an_output_scale_arrives() -> None:
    found = deliver("vllm-0.22.1", "fp8", {"k_proj.output_scale": (0.25, 0.5), "v_proj.output_scale": (0.125, 0.5)})
    assert [each.loaded for each in found.deliveries] == [(0.25,), (0.125,)]
    assert found.attention[0].final["k"] == 0.25


def test_before_0_23_a_plain_parameter_takes_no_list() -> None:
    assert ends("vllm-0.22.1", "modelopt", "k_proj.k_scale", (0.25, 0.5)) == "AssertionError"
    assert ends("vllm-0.23.0", "modelopt", "k_proj.k_scale", (0.25, 0.5)) == "ValueError"


def test_an_output_scale_needs_a_method_that_knows_it() -> None:
    assert ends("vllm-0.22.1", "modelopt", "k_proj.output_scale") == "KeyError"
    assert ends("vllm-0.23.0", "modelopt", "k_proj.output_scale") == "KeyError"
    assert ends("vllm-0.23.0", "quark", "k_proj.output_scale") == "attn.k_scale"


def test_a_name_that_no_parameter_has_is_skipped_with_a_warning() -> None:
    found = deliver("vllm-0.22.1", "modelopt", {"x.k_scale": 0.5}).deliveries[0]
    assert found.outcome == "dropped"
    assert found.name == "model.layers.0.self_attn.x.attn.k_scale"
    assert "maybe_remap_kv_scale_name" in found.reason


def test_int8_schemes_were_used_before_0_25() -> None:
    scheme = {"num_bits": 8, "type": "int", "strategy": "tensor", "symmetric": True}
    for engine, expected in (("vllm-0.22.1", "loads"), ("vllm-0.23.0", "loads"), ("vllm-0.25.0", "refused")):
        profile = get_engine(engine)
        quantization = {**METHODS["compressed-tensors"], "kv_cache_scheme": scheme}
        declaration = declared(LLAMA, quantization, "compressed-tensors")
        found = profile.deliver(declaration, profile.settle(declaration, Wish()), [], Wish())
        assert found.load.outcome == expected, engine


# ---------------------------------------------------------------------------------------------------------- versions
@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ("0.33.1", "0.33.0"), ("0.40.0", "0.33.0"), ("0.32.9", "0.27.1"), ("0.27.0", "0.27.1"), ("0.26.1", "0.25.0"),
        ("0.24.0", "0.23.0"), ("0.22.0", "0.22.1"), ("0.6.3.post1", "0.22.1"), ("0.25.0rc1", "0.25.0"),
    ],
)  # fmt: skip
def test_a_version_that_was_not_run_is_answered_by_its_regime(asked: str, answers: str) -> None:
    engine = get_engine(f"vllm-{asked}")
    assert isinstance(engine, Vllm)
    assert (engine.id, engine.version, engine.release.version) == (f"vllm-{asked}", asked, answers)
    assert f"answered as vLLM {answers}" in engine.how_checked
    assert engine.title == f"vLLM {asked} (as {answers})"
    declaration = declared(LLAMA, METHODS["modelopt"], "modelopt")
    settings = engine.settle(declaration, Wish())
    assert settings.engine.value == f"vllm-{asked}"
    assert f"answered as vLLM {answers}" in settings.engine.detail
    notes = engine.deliver(declaration, settings, [], Wish()).notes
    assert notes == (settings.engine.detail,)


def test_a_version_that_was_run_answers_for_itself() -> None:
    for id_ in (*OLDER, "vllm-0.33.0"):
        engine = ENGINES[id_]
        assert get_engine(id_) is engine
        assert isinstance(engine, Vllm)
        assert engine.stands_in == ""
        assert "compared with what" in engine.how_checked


@pytest.mark.parametrize("engine", ["vllm-new", "vllm-", "vllm-0", "vllm-0.x.1", "vllm-0.25.0 ", "vlm-0.25.0"])
def test_no_such_engine(engine: str) -> None:
    with pytest.raises(UsageError, match="no engine is called"):
        get_engine(engine)


def test_methods_and_cache_dtypes_of_a_version() -> None:
    declaration = declared(LLAMA, None, None)
    old = get_engine("vllm-0.22.1")
    with pytest.raises(UsageError, match=r"no quantization method is called 'nvfp4_per_token' in vLLM 0\.22\.1"):
        old.settle(declaration, Wish(method="nvfp4_per_token"))
    with pytest.raises(UsageError, match=r"vLLM 0\.22\.1 has no KV-cache dtype 'nvfp4_ds_mla'"):
        old.settle(declaration, Wish(kv_cache_dtype="nvfp4_ds_mla"))
    assert old.settle(declaration, Wish(method="gguf")).method.value == "gguf"


def test_rules_of_another_backend_need_a_mapper() -> None:
    mapper = WeightsMapper(rules(RuleKind.SUFFIX, ((".my_scale", ".attn.k_scale"),)))
    with pytest.raises(UsageError, match="has no cache-scale mapper"):
        get_engine("vllm-0.22.1").map_names(["a.my_scale"], method="fp8", architecture=None, rules=mapper)
    renamed = get_engine("vllm-0.23.0").map_names(["a.my_scale"], method="fp8", architecture=None, rules=mapper)
    assert renamed[0].result == "a.attn.k_scale"
