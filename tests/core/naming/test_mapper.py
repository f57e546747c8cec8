"""WeightsMapper: order of the rules, merging, tracing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from core.naming.mapper import Rule, RuleKind, WeightsMapper, rules


def mapper(*given: Rule) -> WeightsMapper:
    return WeightsMapper(given)


REGEX = Rule(RuleKind.REGEX, r"\.([kv])_scale$", r".attn.\1_scale", source="test")
SUBSTR = Rule(RuleKind.SUBSTR, ".attn.", ".mixer.")
STACKED = Rule(RuleKind.STACKED, ".k_proj", ".qkv_proj", shard="k")
PREFIX = Rule(RuleKind.PREFIX, "model.", "language_model.")
SUFFIX = Rule(RuleKind.SUFFIX, ".k_proj.output_scale", ".attn.k_scale")


def test_kinds_run_in_their_order_whatever_order_they_are_given_in() -> None:
    result = mapper(SUFFIX, PREFIX, STACKED, SUBSTR, REGEX).trace("model.0.k_scale", by="Model")
    assert result.result == "language_model.0.mixer.k_scale"
    assert [step.rule.kind for step in result.steps] == ["regex", "substr", "prefix"]
    assert [step.before for step in result.steps] == [
        "model.0.k_scale",
        "model.0.attn.k_scale",
        "model.0.mixer.k_scale",
    ]
    assert {step.by for step in result.steps} == {"Model"}


def test_a_stacked_rule_shadows_a_suffix_rule() -> None:
    """The reason why Quark's Gemma 3 does not load in vLLM 0.33.0."""
    result = mapper(STACKED, SUFFIX).trace("layers.0.self_attn.k_proj.output_scale")
    assert result.result == "layers.0.self_attn.qkv_proj.output_scale"
    assert result.shard == "k"
    assert mapper(SUFFIX).map_name("layers.0.self_attn.k_proj.output_scale") == "layers.0.self_attn.attn.k_scale"


def test_every_matching_rule_of_a_kind_is_applied_to_the_result_so_far() -> None:
    chain = WeightsMapper(rules(RuleKind.SUBSTR, (("a", "b"), ("b", "c"))))
    assert chain.map_name("xax") == "xcx"


def test_only_the_first_occurrence_is_replaced_but_regex_replaces_all() -> None:
    assert WeightsMapper(rules(RuleKind.SUBSTR, ((".a.", ".b."),))).map_name("x.a.y.a.z") == "x.b.y.a.z"
    assert WeightsMapper(rules(RuleKind.REGEX, ((r"\.a(?=\.)", ".b"),))).map_name("x.a.y.a.z") == "x.b.y.b.z"
    assert WeightsMapper(rules(RuleKind.RENAMING, ((r"\.a(?=\.)", ".b"),))).map_name("x.a.y.a.z") == "x.b.y.a.z"
    assert WeightsMapper(rules(RuleKind.SUFFIX, ((".a", ".b"),))).map_name("x.a.a") == "x.a.b"


def test_none_drops_and_says_which_rule() -> None:
    dropper = WeightsMapper(rules(RuleKind.SUFFIX, ((".g_idx", None),), source="here"))
    result = dropper.trace("layer.g_idx")
    assert result.dropped
    assert result.result is None
    assert result.steps[-1].rule.source == "here"
    assert str(result.steps[-1].rule) == "suffix: .g_idx -> dropped"


def test_no_rule_no_step() -> None:
    result = mapper(REGEX).trace("embed.weight")
    assert (result.result, result.steps) == ("embed.weight", ())


def test_merging_replaces_equal_patterns_in_place_and_appends_others() -> None:
    left = mapper(Rule(RuleKind.SUBSTR, "a", "1"), Rule(RuleKind.SUBSTR, "b", "2"))
    right = mapper(Rule(RuleKind.SUBSTR, "a", "3"), Rule(RuleKind.PREFIX, "a", "4"))
    merged = left | right
    assert [(rule.kind, rule.pattern, rule.replacement) for rule in merged.rules] == [
        ("substr", "a", "3"),
        ("substr", "b", "2"),
        ("prefix", "a", "4"),
    ]


def test_renaming_rules_are_appended_even_when_equal() -> None:
    once = mapper(Rule(RuleKind.RENAMING, "a", "b"))
    assert len((once | once).rules) == 2


@pytest.mark.parametrize("other", [{"a": "b"}, "rules", 3, object()])
def test_merging_with_something_else_names_both_sides(other: object) -> None:
    name = f"{type(other).__module__}.{type(other).__qualname__}"
    with pytest.raises(TypeError, match=rf"cannot merge core\.naming\.mapper\.WeightsMapper \| {name}: .*is none"):
        mapper() | other
    with pytest.raises(TypeError, match=rf"cannot merge {name} \| core\.naming\.mapper\.WeightsMapper"):
        other | mapper()


def test_merging_with_none_says_what_the_backend_forgot() -> None:
    with pytest.raises(TypeError, match=r"builtins\.NoneType: get_cache_scale_mapper\(\) returned nothing"):
        mapper() | None


@dataclass(frozen=True)
class Plugin(WeightsMapper):
    vendor: str = ""


@dataclass(frozen=True)
class Other(WeightsMapper):
    revision: int = 0


def test_a_subclass_keeps_its_fields_on_either_side() -> None:
    plugin = Plugin(rules=(SUFFIX,), vendor="acme")
    for merged in (mapper(REGEX) | plugin, plugin | mapper(REGEX)):
        assert isinstance(merged, Plugin)
        assert merged.vendor == "acme"
        assert set(merged.rules) == {REGEX, SUFFIX}


def test_two_unrelated_subclasses_do_not_merge_silently() -> None:
    with pytest.raises(TypeError, match=r"Plugin \| .*Other: neither is a subclass of the other"):
        Plugin(vendor="acme") | Other(revision=2)


def test_an_out_of_tree_mapper_with_its_own_ror_is_asked() -> None:
    class Foreign:
        def __ror__(self, left: WeightsMapper) -> WeightsMapper:
            return left | mapper(SUFFIX)

    assert (mapper(REGEX) | Foreign()).rules == (REGEX, SUFFIX)


def test_a_broken_expression_is_refused_when_the_mapper_is_made() -> None:
    with pytest.raises(ValueError, match=r"rule '\(' is not a regular expression"):
        mapper(Rule(RuleKind.REGEX, "(", ""))


def test_apply_renames_a_stream_and_marks_shards() -> None:
    class Tensor:
        shard_id: object = None

    stream = [("a.k_proj.weight", Tensor()), ("a.g_idx", Tensor()), ("b", Tensor())]
    dropping = mapper(STACKED, Rule(RuleKind.SUFFIX, ".g_idx", None))
    result = [(name, tensor.shard_id) for name, tensor in dropping.apply(stream)]
    assert result == [("a.qkv_proj.weight", "k"), ("b", None)]
