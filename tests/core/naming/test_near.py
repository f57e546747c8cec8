"""Rules that nearly match, and where rules stand."""

from __future__ import annotations

import pytest

from core.naming.citation import cite
from core.naming.mapper import Rule, RuleKind, WeightsMapper, rules
from core.naming.near import NearMiss, near_misses

KEY = "model.layers.0.self_attn.k_proj.output_scale"
SUFFIX = Rule(RuleKind.SUFFIX, ".k_proj.output_scale", ".attn.k_scale")
STACKED = Rule(RuleKind.STACKED, ".k_proj", ".qkv_proj", shard="k")


def near(name: str, *held: Rule) -> list[NearMiss]:
    mapper = WeightsMapper(held)
    return list(near_misses(name, mapper.rules, mapper.trace(name, by="Model").steps, by="Model"))


def test_a_rule_of_a_later_kind_is_shadowed() -> None:
    (found,) = near(KEY, SUFFIX, STACKED)
    assert (found.kind, found.rule) == ("shadowed", SUFFIX)
    assert found.why == "shadowed by the stacked rule .k_proj -> .qkv_proj: stacked rules run before suffix rules"
    assert found.would_make == "model.layers.0.self_attn.attn.k_scale"


def test_a_rule_behind_one_of_its_kind_is_shadowed() -> None:
    first, second = rules(RuleKind.REGEX, ((r"\.k_scale$", ".x"), (r"\.attn\.k_scale$", ".y")))
    (found,) = near("a.attn.k_scale", first, second)
    assert found.why == r"shadowed by the regex rule \.k_scale$ -> .x: it stands before this one"


def test_a_rule_that_drops_shadows_too() -> None:
    drop = Rule(RuleKind.SUBSTR, "self_attn", None)
    (found,) = near(KEY, drop, SUFFIX)
    assert found.why == "shadowed by the substr rule self_attn -> dropped: substr rules run before suffix rules"


def test_a_rule_may_exclude_names_by_looking_around() -> None:
    guarded = Rule(RuleKind.REGEX, r"(?<!\.attn)\.([qkv])_scale$", r".attn.\1_scale")
    (found,) = near("model.layers.0.attn.k_scale", guarded)
    assert found.kind == "guarded"
    assert found.why == rf"{guarded.pattern} leaves names alone that look like model.layers.0.attn.k_scale"


@pytest.mark.parametrize("pattern", [r"(?=a)+b", r"^(?!x)(\w|[a-z]|\.)+\d$"])
def test_a_foreign_rule_that_is_odd_without_its_guard_gives_no_hint(pattern: str) -> None:
    rule = Rule(RuleKind.REGEX, pattern, "", foreign=True)
    assert near("x.model.layers.0.self_attn.k_proj.output_scale", rule) == []


@pytest.mark.parametrize(
    "pattern",
    [r"^(?!mtp\.)(?!.*(?:embed|lm_head\.)).+\.k_scale$", r"\.k(?<!(?:[)]\)|at)\.k)_scale$", r"(?!(k|v)).attn"],
)
def test_a_guard_may_hold_groups(pattern: str) -> None:
    guarded = Rule(RuleKind.REGEX, pattern, None)
    for name in ("mtp.attn.k_scale", "attn.k_scale"):
        assert {each.kind for each in near(name, guarded)} <= {"guarded"}
    assert [each.kind for each in near("mtp.embed.attn.k_scale", guarded)] in (["guarded"], [])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.layers.0.attention.k_proj.k_scale", "wants self_attn where {name} has attention"),
        ("model.layers.0.self_attn.key.k_scale", "wants [kv]_proj where {name} has key"),
    ],
)
def test_one_dotted_part_differs(name: str, wanted: str) -> None:
    rule = Rule(RuleKind.REGEX, r"\.self_attn\.[kv]_proj\.([kv])_scale$", r".self_attn.attn.\1_scale")
    (found,) = near(name, rule)
    assert found.kind == "anchored"
    assert found.why == f"{rule.pattern} {wanted.format(name=name)}"
    assert 0 < found.likeness < 1


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.k_proj.weight", "model.layers.0.mlp.down.k_scale", "k_scale"]
)
def test_other_names_are_not_near(name: str) -> None:
    rule = Rule(RuleKind.REGEX, r"\.self_attn\.[kv]_proj\.([kv])_scale$", r".self_attn.attn.\1_scale")
    assert near(name, rule, SUFFIX) == []


def test_applied_rules_are_no_misses() -> None:
    assert near(KEY, SUFFIX) == []
    assert near(KEY, STACKED) == []


def test_rules_are_cited_where_they_stand() -> None:
    def where(source: str, pattern: str, by: str = "Model", release: str = "vllm-0.33.0") -> str:
        title = "SGLang 0.5.23" if release.startswith("sglang") else f"vLLM {release.removeprefix('vllm-')}"
        return cite(Rule(RuleKind.SUFFIX, pattern, "", source=source), by=by, release=release, title=title)

    quark = "vLLM 0.33.0, layers/quantization/quark/quark.py, QuarkConfig"
    assert where(quark, ".v_proj.output_scale") == (
        "vLLM 0.33.0, layers/quantization/quark/quark.py:956, QuarkConfig.get_cache_scale_mapper"
    )
    own = "vLLM 0.33.0, Gemma3Model's own mapper"
    assert where(own, ".k_proj") == "vLLM 0.33.0, models/gemma3.py:285, Gemma3Model.hf_to_vllm_mapper"
    assert where(own, "not there") == "vLLM 0.33.0, models/gemma3.py:281, Gemma3Model.hf_to_vllm_mapper"
    # A rule that an older release shares is cited as it stands there.
    assert where(quark, ".v_proj.output_scale", release="vllm-0.27.1").startswith("vLLM 0.27.1, layers/quantization/")
    loop = where("SGLang 0.5.23, models/llama.py", ".k_proj", by="LlamaForCausalLM", release="sglang-0.5.23")
    assert loop.startswith("SGLang 0.5.23, models/llama.py:")
    assert loop.endswith(", LlamaForCausalLM.load_weights")
    # What is not known stays as it was: an out-of-tree backend's rules, an engine whose sources were not read.
    assert where("rules.toml", ".k_proj") == "rules.toml"
    assert where("vLLM 0.33.0, NoSuchModel's own mapper", ".k_proj") == "vLLM 0.33.0, NoSuchModel's own mapper"
    assert cite(SUFFIX, by="", release="tensorrt-llm", title="TensorRT-LLM") == SUFFIX.source
