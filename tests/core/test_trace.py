"""The rule trace of real keys: steps with their lines, what nearly matched, the parameter, and what comes next."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.engines import get_engine
from core.inspection import Inspection, inspect
from core.report import report
from core.report.text import mapping_text
from core.trace import Trace, Tracer

DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


def trace_of(inspection: Inspection, key: str = "") -> Trace:
    found = inspection.deliveries.deliveries
    return Tracer(inspection).trace(next(each for each in found if not key or each.key == key))


@pytest.mark.parametrize(
    ("engine", "lines"),
    [
        ("vllm-0.33.0", ("vLLM 0.33.0", 233, 1795, 1777)),
        ("vllm-0.27.1", ("vLLM 0.27.1", 208, 1446, 1428)),
    ],
)
def test_each_release_is_cited_by_its_own_lines(samples: Path, engine: str, lines: tuple[str, int, int, int]) -> None:
    title, outer, inner, nearly = lines
    trace = trace_of(inspect(samples / DEEPSEEK, engine=engine))
    assert [cited.source for cited in trace.steps] == [
        f"{title}, layers/quantization/base_config.py:{outer}, QuantizationConfig.get_cache_scale_mapper",
        f"{title}, model_loader/weight_utils.py:{inner}, maybe_remap_kv_scale_name",
    ]
    (near,) = trace.near
    assert (near.kind, near.by) == ("shadowed", "DeepseekV2Model")
    assert near.source == f"{title}, model_loader/weight_utils.py:{nearly}, maybe_remap_kv_scale_name"
    assert near.would_make == "model.layers.0.self_attn.mla_attn.mla_attn.k_scale"
    assert near.why.endswith(
        "it would have made model.layers.0.self_attn.mla_attn.mla_attn.k_scale, which is the parameter"
    )


def test_the_parameter_that_waits_and_what_its_own_name_would_do(samples: Path) -> None:
    deepseek = trace_of(inspect(samples / DEEPSEEK))
    assert deepseek.target is None
    assert deepseek.parameter == "model.layers.0.self_attn.mla_attn.mla_attn.k_scale"
    assert deepseek.verbatim == (
        "Even a tensor of that name would be dropped, renamed to layers.0.self_attn.mla_attn.mla_attn.attn.attn.k_scale"
    )
    assert deepseek.then == "The load goes on; model.layers.0.self_attn.mla_attn.mla_attn ends with k = 1.0."
    gemma = trace_of(inspect(samples / GEMMA))
    assert gemma.parameter == "model.layers.0.self_attn.attn.k_scale"
    assert gemma.verbatim == "A tensor of that name would be taken"
    assert gemma.then == "The load stops here; 51 more scales are not read."


def test_what_arrives_has_its_parameter_and_no_near_miss(samples: Path) -> None:
    trace = trace_of(inspect(samples / QWEN), "model.layers.3.self_attn.v_proj.v_scale")
    assert trace.target == "model.layers.3.self_attn.attn.v_scale"
    assert trace.layer is not None
    assert trace.layer.path == "model.layers.3.self_attn.attn"
    assert (trace.near, trace.parameter, trace.verbatim) == ((), "", "")
    assert trace.then == "The load goes on; model.layers.3.self_attn.attn ends with v = 0.023071."


def test_older_vllm_and_sglang_are_cited_too(samples: Path) -> None:
    older = trace_of(inspect(samples / DEEPSEEK, engine="vllm-0.22.1"))
    assert [cited.source for cited in older.steps] == [
        "vLLM 0.22.1, model_loader/weight_utils.py:1576, maybe_remap_kv_scale_name"
    ]
    sglang = trace_of(inspect(samples / QWEN, engine="sglang-0.5.23"))
    assert sglang.near == () or sglang.near[0].kind in ("shadowed", "unasked")
    assert all("SGLang 0.5.23, " in cited.source and ".py:" in cited.source for cited in sglang.steps)
    assert "The load goes on; model.layers.0.self_attn.attn ends with k = 1.0." in sglang.then


def test_one_part_of_the_name_is_off(shared: Path) -> None:
    trace = trace_of(inspect(shared / "checkpoints/quark/deepseekv3-fp8-kvfp8"))
    assert trace.delivery.key == "model.layers.0.self_attn.kv_b_proj.output_scale"
    (near,) = trace.near
    assert near.kind == "anchored"
    assert near.why == (
        ".k_proj.output_scale wants k_proj where model.layers.0.self_attn.kv_b_proj.output_scale has kv_b_proj"
    )
    assert near.source.startswith("vLLM 0.33.0, layers/quantization/quark/quark.py:955")


def test_no_rule_is_near_where_the_shape_is_to_blame(shared: Path) -> None:
    trace = trace_of(inspect(shared / "checkpoints/quark/llama-fp8-kvfp8perchannel"))
    assert trace.delivery.outcome == "raises"
    assert trace.near == ()


def test_every_near_miss_and_step_of_every_checkpoint_names_its_source(checkpoint_folder: Path) -> None:
    for engine in ("vllm-0.33.0", "sglang-0.5.23"):
        inspection = inspect(checkpoint_folder, engine=engine)
        tracer = Tracer(inspection)
        for delivery in inspection.deliveries.deliveries[:8]:
            trace = tracer.trace(delivery)
            for cited in trace.steps:  # vLLM's backend for Transformers' own models has rules that no file lists
                assert ".py:" in cited.source or "models/transformers" in cited.source, cited.source
            assert all(".py:" in near.source and near.why for near in trace.near), trace.near
            assert trace.then
            assert (trace.target is not None) == (delivery.outcome == "loaded")


def test_the_report_holds_the_trace(samples: Path) -> None:
    scale = report(inspect(samples / GEMMA))["scales"][0]
    assert scale["steps"][0]["source"] == "vLLM 0.33.0, models/gemma3.py:285, Gemma3Model.hf_to_vllm_mapper"
    assert scale["near"][0]["rule"] == "suffix: .k_proj.output_scale -> .attn.k_scale"
    assert scale["parameter"] == "model.layers.0.self_attn.attn.k_scale"
    assert scale["layer_path"] == "model.layers.0.self_attn.attn"
    assert scale["then"] == "The load stops here; 51 more scales are not read."


def test_mapped_names_are_told_with_their_sources() -> None:
    engine = get_engine("sglang-0.5.23")
    names = ["model.layers.0.self_attn.k_proj.k_scale", "model.norm.weight"]
    renamings = engine.map_names(names, method="modelopt_fp8", architecture="DeepseekV3ForCausalLM")
    lines = list(mapping_text(renamings, engine))
    assert lines[0] == "model.layers.0.self_attn.k_proj.k_scale -> model.layers.0.self_attn.attn_mqa.k_scale"
    assert lines[1].startswith("    DeepseekV2ForCausalLM: substr: k_proj -> attn_mqa  (SGLang 0.5.23, models/deepseek")
    assert ".py:" in lines[1]
    assert lines[-1] == "    no rule matches"


@pytest.mark.parametrize(
    ("engine", "method", "name", "nearly"),
    [
        (
            "vllm-0.33.0",
            "modelopt",
            "model.layers.0.attention.k_proj.k_scale",
            r"\.self_attn\.[kv]_proj\.([kv])_scale$ wants self_attn where {name} has attention  (vLLM 0.33.0, ",
        ),
        ("vllm-0.33.0", "quark", "model.layers.0.self_attn.wk.output_scale", ".k_proj.output_scale wants k_proj where"),
        ("vllm-0.22.1", "modelopt", "model.layers.0.attn.k_proj.k_scale", "wants self_attn where {name} has attn"),
        ("sglang-0.5.23", "quark", "model.layers.0.self_attn.wk.output_scale", "wants k_proj where {name} has wk"),
        ("vllm-0.33.0", "modelopt", "model.layers.0.self_attn.k_proj.k_scale", ""),
        ("vllm-0.33.0", "modelopt", "model.layers.0.self_attn.attn.k_scale", ""),
        ("vllm-0.33.0", "modelopt", "model.norm.weight", ""),
        ("tensorrt-llm", "modelopt", "model.layers.0.attention.k_proj.k_scale", ""),
    ],
)
def test_mapped_names_that_end_nowhere_are_told_what_came_near(
    engine: str, method: str, name: str, nearly: str
) -> None:
    profile = get_engine(engine)
    lines = list(mapping_text(profile.map_names([name], method=method, architecture=None), profile, method))
    told = [line for line in lines if line.startswith("    nearly: ")]
    assert len(told) == bool(nearly)
    assert all(nearly.format(name=name) in line and ".py:" in line for line in told)
