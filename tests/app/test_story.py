"""WHY: the story of one scale as beats, text and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from app.digest import Digest
from app.story import Story, tell
from core.inspection import reinspect
from core.trace import Tracer

DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
Digested = Callable[[str], Digest]


def first(digest: Digest) -> Story:
    return tell(digest, digest.rows[0])


def titles(story: Story) -> list[str]:
    return [beat.title for beat in story.beats]


def test_what_nearly_matched_stands_before_what_was_looked_for(digested: Digested) -> None:
    story = first(digested(GEMMA))
    assert titles(story)[:5] == [
        "In the checkpoint", "Rule renames", "Nearly matched", "No such parameter", "What vLLM 0.33.0 does"
    ]  # fmt: skip
    renames, near, target, does = story.beats[1:5]
    assert renames.source == "vLLM 0.33.0, models/gemma3.py:285, Gemma3Model.hf_to_vllm_mapper"
    assert (near.chip, near.tone) == ("shadowed", "warning")
    assert dict(near.facts)["rule"] == "suffix: .k_proj.output_scale -> .attn.k_scale"
    assert near.source.startswith("vLLM 0.33.0, layers/quantization/quark/quark.py:955")
    assert dict(target.facts)["it waits for"] == "model.layers.0.self_attn.attn.k_scale"
    assert dict(target.facts)["named so"] == "A tensor of that name would be taken"
    assert dict(does.facts)["next"] == "The load stops here; 51 more scales are not read."
    assert "The layer ends with nothing" in titles(story)


def test_a_scale_that_arrives_has_no_near_misses(digested: Digested) -> None:
    story = first(digested(QWEN))
    assert titles(story)[:5] == [
        "In the checkpoint", "Rule renames", "Parameter found", "What vLLM 0.33.0 does", "The layer ends with"
    ]  # fmt: skip
    assert "Nearly matched" not in titles(story)


def test_the_text_and_the_json_hold_the_trace(digested: Digested) -> None:
    digest = digested(DEEPSEEK)
    story = tell(digest, digest.rows[0], Tracer(digest.inspection))
    text = story.as_text()
    assert "4. Nearly matched [shadowed]\n" in text
    assert "(vLLM 0.33.0, model_loader/weight_utils.py:1777, maybe_remap_kv_scale_name)" in text
    data = json.loads(json.dumps(story.as_dict()))
    assert data["parameter"] == "model.layers.0.self_attn.mla_attn.mla_attn.k_scale"
    assert data["steps"][0]["source"].startswith("vLLM 0.33.0, layers/quantization/base_config.py:233")
    assert [near["kind"] for near in data["near"]] == ["shadowed"]
    assert data["engine"] == "vLLM 0.33.0"


@pytest.mark.parametrize("engine", ["vllm-0.22.1", "sglang-0.5.23", "tensorrt-llm"])
def test_every_engine_tells_a_story(digested: Digested, engine: str) -> None:
    from app.digest import digest

    found = digest(reinspect(digested(QWEN).inspection, engine=engine))
    story = first(found)
    assert story.beats[0].title == "In the checkpoint"
    assert any(beat.title.startswith("What ") and beat.text for beat in story.beats)
