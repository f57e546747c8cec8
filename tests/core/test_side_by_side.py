"""Where two engines part on a key."""

from __future__ import annotations

from pathlib import Path

from core.engines.outcome import Delivery
from core.inspection import Inspection, inspect, reinspect
from core.side_by_side import ends_alike, why_they_differ

DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"


def first(inspection: Inspection) -> Delivery:
    return inspection.deliveries.deliveries[0]


def test_it_begins_at_the_step_at_which_they_part(samples: Path) -> None:
    newest = inspect(samples / DEEPSEEK)
    older = reinspect(newest, engine="vllm-0.23.0")
    told = why_they_differ(first(newest), first(older), left_engine="0.33", right_engine="0.23").splitlines()
    assert len(told) == 2
    assert told[0].startswith(r"0.33: DeepseekV3ForCausalLM's regex rule \.self_attn\.[kv]_proj\.([kv])_scale$ gives")
    assert "layers.0.self_attn.attn.attn.k_scale" in told[0]
    assert told[0].endswith("skipped with one warning.")
    assert told[1].endswith("gives layers.0.self_attn.mla_attn.mla_attn.k_scale, then that parameter takes it.")


def test_what_both_do_first_is_left_out(samples: Path) -> None:
    gemma = inspect(samples / "quark/gemma3-26layers-fp8-kvfp8")
    older = reinspect(gemma, engine="vllm-0.22.1")
    newer = reinspect(gemma, engine="vllm-0.27.1")
    assert ends_alike(first(gemma), first(newer))
    assert why_they_differ(first(gemma), first(newer), left_engine="a", right_engine="b") == ""
    assert ends_alike(first(gemma), first(older))  # another exception, the same outcome
    sglang = reinspect(gemma, engine="sglang-0.5.23")
    told = why_they_differ(first(gemma), first(sglang), left_engine="vLLM", right_engine="SGLang").splitlines()
    assert told[0] == (
        "vLLM: Gemma3ForCausalLM's stacked rule .k_proj gives model.layers.0.self_attn.qkv_proj.output_scale, then "
        "AttributeError: 'QKVParallelLinear' object has no attribute 'data'."
    )
    assert told[1].startswith("SGLang: Gemma3ForCausalLM's suffix rule .k_proj.output_scale gives")
    assert told[1].endswith("then that parameter takes it.")
