"""The profile "installed": equal to the built-in one where vLLM is the same, and different exactly where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.backends.older import BACKENDS_0_25
from core.engines import ENGINES, Fed, Wish, get_engine
from core.engines.difference import Difference, summary
from core.engines.installed import Installed, ProbedBackend, differences, installed_engine, nearest_release
from core.engines.outcome import Deliveries
from core.engines.saved import save
from core.engines.vllm.releases import NEWEST, RELEASES
from core.errors import KVScopeError, UsageError
from core.inspection import inspect, reinspect
from core.loading.verify import setup_for
from core.naming.mapper import RuleKind
from core.quantization.declaration import Declaration
from core.report import report, text_report
from tests.core.engines.installed_vllm import document_of, engine_of, mapper, rules_of
from tests.places import SAMPLES, checkpoint_folders

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
K = "model.layers.0.self_attn.k_proj.output_scale"
BOTH = (K, "model.layers.0.self_attn.v_proj.output_scale")
_QUANTIZATION: dict[str, dict[str, Any]] = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "static"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the probed engine, in a data folder of this test's own."""
    monkeypatch.setenv("KVSCOPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "engines" / "installed.json"


def predicted(
    engine: Installed, *keys: str, method: str | None = "fp8", config: dict[str, Any] | None = None, **wish: Any
) -> Deliveries:
    """What becomes of these scales, each 0.25, in that model."""
    declaration = Declaration(
        hf_config=config or LLAMA,
        method=method,
        config=_QUANTIZATION.get(method or "", {"quant_method": method}),
        architectures=tuple((config or LLAMA)["architectures"]),
        model_type=(config or LLAMA)["model_type"],
        torch_dtype="bfloat16",
    )
    asked = Wish(kv_cache_dtype="fp8", **wish)
    tensors = [Fed(key, (), (0.25,)) for key in keys]
    return engine.deliver(declaration, engine.settle(declaration, asked), tensors, asked)


def details(found: tuple[Difference, ...]) -> set[tuple[str, str, str]]:
    return {(each.subject, each.change, each.detail) for each in found}


# ------------------------------------------------------------------------------------------------- nothing is different
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.version)
def test_no_difference_from_the_release_itself(release: Any) -> None:
    probed = engine_of(release.version)
    assert differences(probed) == ()
    engine = Installed(probed)
    assert engine.base is release
    assert dict(engine.release.backends) == dict(release.backends)
    assert engine.how_checked.startswith(f"no difference from the built-in profile of vLLM {release.version}")
    # More may be known: names for which the registry has a class that was surveyed under another name.
    assert set(engine.known_architectures()) >= set(get_engine(release.id).known_architectures())


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.version)
def test_predictions_are_those_of_the_release_itself(release: Any) -> None:
    save(engine_of(release.version))
    folders = [path for path in sorted(SAMPLES.glob("*/*/")) if path.is_dir()]
    assert len(folders) >= 5
    for folder in folders:
        for cache in ("auto", "fp8"):
            own = inspect(folder, engine=release.id, kv_cache_dtype=cache)
            installed = reinspect(own, engine="installed")
            assert installed.deliveries == own.deliveries, folder
            assert installed.findings == own.findings
            assert installed.verdict == own.verdict


def test_names_are_those_of_the_release_itself() -> None:
    built_in, engine = get_engine("vllm-0.33.0"), Installed(engine_of("0.33.0"))
    names = ["model.layers.0.self_attn.k_proj.k_scale", K, "a.kv_scale", "a.g_idx", "b.weight"]
    for method in ("fp8", "awq", None):
        for architecture in ("LlamaForCausalLM", "Gemma3ForCausalLM", None):
            assert engine.map_names(names, method=method, architecture=architecture) == built_in.map_names(
                names, method=method, architecture=architecture
            )


# ------------------------------------------------------------------------------------------------------- quantization
def test_rules_added_removed_and_changed() -> None:
    def change(document: dict[str, Any]) -> None:
        rules = rules_of(document, "fp8")
        rules["suffix"] = [[".k_proj.output_scale", ".attn.k_scale_2"], *rules["suffix"][2:], [".new", None]]
        document["methods"]["fp8"]["cache_scale_mapper"] = mapper(document, **rules)

    engine = Installed(engine_of("0.33.0", change))
    assert details(engine.differences) == {
        (
            "fp8",
            "changed",
            "cache-scale rule suffix: .k_proj.output_scale -> .attn.k_scale, now -> .attn.k_scale_2",
        ),
        ("fp8", "removed", "cache-scale rule suffix: .v_proj.output_scale -> .attn.v_scale"),
        ("fp8", "added", "cache-scale rule suffix: .new -> dropped"),
    }
    assert engine.how_checked == "differs from the built-in profile of vLLM 0.33.0 in 3 rules of methods"
    (renamed,) = engine.map_names([K], method="fp8", architecture=None)
    assert renamed.result == "model.layers.0.self_attn.attn.k_scale_2"
    assert renamed.steps[0].rule.source == (
        "vLLM 0.33.0 as installed, quantization.fp8.Fp8Config.get_cache_scale_mapper"
    )
    told = predicted(engine, *BOTH)
    assert told.load.outcome == "raises"
    assert told.notes == (
        "the rules of fp8 differ from those of vLLM 0.33.0 in 3 rules of methods; they are used as they are installed",
    )


def test_rules_in_another_order() -> None:
    def change(document: dict[str, Any]) -> None:
        rules = rules_of(document, "fp8")
        rules["regex"].reverse()
        document["methods"]["fp8"]["cache_scale_mapper"] = mapper(document, **rules)

    engine = Installed(engine_of("0.33.0", change))
    assert details(engine.differences) == {("fp8", "changed", "cache-scale rule the rules come in another order")}
    ours = [rule.pattern for rule in engine.release.backends["fp8"].get_cache_scale_mapper().rules]
    assert ours[0] == r"(?<!\.attn)\.([qkv])_zero_point$"


def test_a_method_without_rules_loads_nothing() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["methods"]["fp8"].update(cache_scale_mapper=None)))
    assert {each.change for each in engine.differences} == {"removed"}
    assert len(engine.differences) == 12
    assert predicted(engine, "model.layers.0.self_attn.k_scale").deliveries[0].outcome == "ignored"


def test_ignored_suffixes() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["methods"]["awq"].update(ignored_suffixes=[".x_scale"])))
    assert {(each.kind, each.subject, each.change) for each in engine.differences} == {
        ("suffix", "awq", "removed"),
        ("suffix", "awq", "added"),
    }
    assert engine.differences[1].detail == "names that end in .x_scale and lead nowhere"
    name = "model.layers.0.self_attn.attn.k_scale"
    assert predicted(Installed(engine_of("0.33.0")), name, method="awq").load.outcome == "loads"
    assert predicted(engine, name, method="awq").load.outcome == "raises"


def test_checkpoint_rules() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["methods"]["gptq"].update(checkpoint_mapper=None)))
    assert details(engine.differences) == {("gptq", "removed", "checkpoint rule suffix: .g_idx -> dropped")}
    assert engine.map_names(["a.g_idx"], method="gptq", architecture=None)[0].result == "a.g_idx"


def test_a_method_that_nobody_knows_is_mapped_and_no_more() -> None:
    def change(document: dict[str, Any]) -> None:
        document["methods"]["mine"] = {
            **document["methods"]["fp8"],
            "config_class": "my_plugin.quant.MyConfig",
            "cache_scale_mapper": mapper(document, substr=[["k_proj.output_scale", "attn.k_scale"]]),
        }

    engine = Installed(engine_of("0.33.0", change))
    assert details(engine.differences) == {("mine", "added", "vLLM 0.33.0 does not have MyConfig")}
    assert engine.new_methods == {"mine"}
    backend = engine.get_backend("mine")
    assert (backend.title, backend.config_class) == ("mine (MyConfig)", "MyConfig")
    assert backend.kv_method("Attention", "a.attn", Declaration()) is None
    for config in (LLAMA, {**LLAMA, "architectures": ["NobodyKnows"]}):
        told = predicted(engine, *BOTH, method="mine", config=config)
        assert (told.load.outcome, told.attention) == ("unknown", ())
        assert told.load.reason.startswith("of the quantization method mine only the renaming rules are known")
        first, second = told.deliveries
        assert (first.name, first.target, first.outcome) == (
            "model.layers.0.self_attn.attn.k_scale",
            None,
            "not_reached",
        )
        assert first.steps[0].rule.kind is RuleKind.SUBSTR
        inside = {"LlamaForCausalLM": "v_proj", "NobodyKnows": "qkv_proj"}[config["architectures"][0]]
        assert second.name == f"model.layers.0.self_attn.{inside}.output_scale"


def test_a_method_that_another_release_knows() -> None:
    def change(document: dict[str, Any]) -> None:
        document["methods"]["auto_awq"] = document_of("0.25.0")["methods"]["auto_awq"] | {"cache_scale_mapper": None}

    engine = Installed(engine_of("0.23.0", change))
    (found,) = engine.differences
    assert (found.subject, found.change, found.consequence) == ("auto_awq", "added", "it is known from another version")
    assert engine.new_methods == frozenset()
    assert isinstance(engine.get_backend("auto_awq"), ProbedBackend)
    assert "auto_awq" in BACKENDS_0_25
    other = Installed(engine_of("0.23.0", change, lambda it: it["methods"]["auto_awq"].update(config_class="x.Other")))
    assert other.new_methods == {"auto_awq"}


def test_a_method_that_is_gone_is_refused() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["methods"].pop("fp8")))
    assert details(engine.differences) == {("fp8", "removed", "vLLM 0.33.0 has no such quantization method")}
    told = predicted(engine, *BOTH)
    assert told.load.outcome == "refused"
    assert str(told.load.error).startswith(
        "ValidationError: 1 validation error for ModelConfig Value error, Unknown quantization method: fp8. Must be"
    )
    assert told.load.reason == "the installed vLLM 0.33.0 has no quantization method fp8"
    with pytest.raises(UsageError, match="'fp8'"):
        engine.settle(Declaration(), Wish(method="fp8"))


def test_a_method_that_could_not_be_read_stays_as_it_is_known() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["methods"].update(fp8={"error": "RuntimeError: no"})))
    assert engine.differences == ()
    assert engine.release.backends["fp8"] is NEWEST.backends["fp8"]


def test_get_cache_scale_of_its_own() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["methods"]["fp8"].update(asks_cache_scale=True)))
    assert details(engine.differences) == {("fp8", "changed", "quantization.fp8.Fp8Config has get_cache_scale")}
    without = engine_of("0.22.1", lambda it: it["methods"]["quark"].update(asks_cache_scale=False))
    assert details(differences(without)) == {
        ("quark", "changed", "quantization.quark.quark.QuarkConfig has no get_cache_scale")
    }


def test_rules_of_an_unknown_kind_and_other_answers_are_differences() -> None:
    def change(document: dict[str, Any]) -> None:
        document["names"] = ["a.weight"]
        for row in document["mappers"]:
            row["names"] = ["a.weight"]
        position = document["methods"]["fp8"]["cache_scale_mapper"]
        document["mappers"][position].update(unread=["orig_to_new_magic"], names=["b"])

    found = differences(engine_of("0.33.0", change))
    assert {(each.kind, each.change) for each in found} == {("renaming", "added"), ("renaming", "changed")}
    assert "vLLM makes b of a.weight, the same rules here make a.weight" in {each.detail for each in found}
    assert {each.detail for each in found if each.change == "added"} == {
        "its mapper has orig_to_new_magic, a kind of rule that is not known here"
    }


# ------------------------------------------------------------------------------------------------------- model classes
def _hands_over(document: dict[str, Any]) -> None:
    """LlamaForCausalLM hands over the stacked rules that its class has, as Gemma does."""
    document["classes"]["llama.LlamaForCausalLM"].update(passes="class", source="0123456789abcdef")


def test_an_outer_mapper_that_is_used_now() -> None:
    engine = Installed(engine_of("0.33.0", _hands_over))
    found = [each for each in engine.differences if each.subject == "llama.LlamaForCausalLM"]
    assert found[0].text == (
        "loader changed: load_weights hands its class's mapper to AutoWeightsLoader, before it hands no mapper to "
        "AutoWeightsLoader"
    )
    assert found[1].text == "mapper added: rule stacked: .q_proj -> .qkv_proj (q)"
    built_in = Installed(engine_of("0.33.0"))
    assert predicted(built_in, *BOTH).load.outcome == "loads"
    told = predicted(engine, *BOTH)
    assert told.load.error == "AttributeError: 'QKVParallelLinear' object has no attribute 'data'"
    step = told.deliveries[0].steps[0]
    assert (step.rule.kind, step.rule.source) == (
        RuleKind.STACKED,
        "vLLM 0.33.0 as installed, llama.LlamaForCausalLM's own mapper",
    )
    (note,) = told.notes
    assert note == ("llama.LlamaForCausalLM: load_weights was rewritten since vLLM 0.33.0, and is followed as it was")
    assert engine.map_names([K], method="fp8", architecture="LlamaForCausalLM")[0].shard == "k"


def test_an_outer_mapper_that_is_no_longer_used() -> None:
    def change(document: dict[str, Any]) -> None:
        document["classes"]["gemma3.Gemma3ForCausalLM"].update(passes="none")
        document["classes"]["gemma3.Gemma3Model"].update(passes="none")

    config = {**LLAMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
    engine = Installed(engine_of("0.33.0", change))
    assert {each.change for each in engine.differences if each.kind == "mapper"} == {"removed"}
    before = predicted(Installed(engine_of("0.33.0")), *BOTH, config=config)
    assert before.load.error == "AttributeError: 'QKVParallelLinear' object has no attribute 'data'"
    assert predicted(engine, *BOTH, config=config).load.outcome == "loads"


def test_code_that_was_rewritten_is_followed_as_it_was() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["classes"]["llama.LlamaModel"].update(source="f" * 16)))
    (found,) = engine.differences
    assert (found.subject, found.text) == ("llama.LlamaModel", "loader changed: load_weights was rewritten")
    assert found.consequence == "predictions follow the loader as it was"
    told = predicted(engine, *BOTH)
    assert (told.load.outcome, len(told.notes)) == ("loads", 1)
    assert "llama.LlamaModel" in told.notes[0]


def test_a_class_of_the_same_name_elsewhere_changes_nothing() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["classes"]["llama_eagle.LlamaModel"].update(passes="own")))
    assert len(engine.differences) >= 1
    assert predicted(engine, *BOTH) == predicted(Installed(engine_of("0.33.0")), *BOTH)


def test_a_loader_that_became_a_loop_is_unknown() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["classes"]["llama.LlamaModel"].update(passes="own")))
    told = predicted(engine, *BOTH)
    assert told.load.outcome == "unknown"
    assert told.load.reason == (
        "llama.LlamaModel loads itself in another way in the installed vLLM 0.33.0 than in vLLM 0.33.0, whose way "
        "alone is known"
    )
    assert {each.outcome for each in told.deliveries} == {"not_reached"}
    with pytest.raises(UsageError, match=r"'LlamaForCausalLM' is not known for vLLM 0\.33\.0 \(installed\)"):
        engine.map_names([K], method="fp8", architecture="LlamaForCausalLM")


def test_a_mapper_made_at_run_time_that_changed_is_unknown() -> None:
    def change(document: dict[str, Any]) -> None:
        document["classes"]["gemma4.Gemma4Model"].update(mapper=mapper(document, prefix=[["a", "b"]]))

    config = {**LLAMA, "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text"}
    engine = Installed(engine_of("0.33.0", change))
    assert [each.kind for each in engine.differences].count("mapper") >= 1
    told = predicted(engine, *BOTH, config=config)
    assert told.load.reason == (
        "gemma4.Gemma4Model has another mapper in the installed vLLM 0.33.0, and only running code shows how it is used"
    )


def test_towers_may_load_themselves_as_they_like() -> None:
    def change(document: dict[str, Any]) -> None:
        document["classes"]["siglip.SiglipVisionTransformer"].update(passes="own")

    config = {**LLAMA, "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}
    told = predicted(Installed(engine_of("0.33.0", change)), config=config)
    assert told.load.outcome == "loads"


# ------------------------------------------------------------------------------------------------------- architectures
def test_an_architecture_that_is_gone() -> None:
    engine = Installed(engine_of("0.33.0", lambda it: it["architectures"].pop("LlamaForCausalLM")))
    assert details(engine.differences) == {("LlamaForCausalLM", "removed", "vLLM 0.33.0 does not register it")}
    assert predicted(engine, *BOTH).load.reason == "the installed vLLM 0.33.0 does not register LlamaForCausalLM"


def test_an_architecture_of_another_class() -> None:
    def change(document: dict[str, Any]) -> None:
        document["architectures"]["LlamaForCausalLM"] = {"class": "mistral.MistralForCausalLM"}

    engine = Installed(engine_of("0.33.0", change))
    (found,) = engine.differences
    assert found.detail == "it is built as mistral.MistralForCausalLM, in vLLM 0.33.0 as llama.LlamaForCausalLM"
    assert predicted(engine, *BOTH).load.reason == (
        "the installed vLLM 0.33.0 builds LlamaForCausalLM as mistral.MistralForCausalLM, which is not known; vLLM "
        "0.33.0 builds it as llama.LlamaForCausalLM"
    )


def test_a_new_architecture_of_a_known_class() -> None:
    def change(document: dict[str, Any]) -> None:
        document["architectures"].update(
            {"NewForCausalLM": {"class": "llama.LlamaForCausalLM"}, "Odd": {"error": "no"}}
        )

    config = {**LLAMA, "architectures": ["NewForCausalLM"]}
    engine = Installed(engine_of("0.33.0", change))
    assert {(each.subject, each.consequence) for each in engine.differences} == {
        ("NewForCausalLM", "built by a class that is known"),
        ("Odd", "its modules are not known"),
    }
    told = predicted(engine, *BOTH, config=config)
    assert told.load.outcome == "loads"
    assert told.notes[0].startswith("NewForCausalLM is built by the same class as ")
    assert "NewForCausalLM" in engine.known_architectures()
    chosen = engine.settle(Declaration(hf_config=LLAMA), Wish(architecture="NewForCausalLM"))
    assert chosen.architecture.value == "NewForCausalLM"
    assert predicted(engine, *BOTH, config={**LLAMA, "architectures": ["Odd"]}).load.outcome == "unknown"


def test_an_architecture_that_could_not_be_read_there() -> None:
    def change(document: dict[str, Any]) -> None:
        document["architectures"]["LlamaForCausalLM"] = {"error": "ImportError: no timm"}

    engine = Installed(engine_of("0.33.0", change))
    assert engine.differences == ()
    told = predicted(engine, *BOTH)
    assert told.load.outcome == "loads"
    assert told.notes == ("the installed vLLM could not be asked about LlamaForCausalLM (ImportError: no timm)",)


# ------------------------------------------------------------------------------------------------------------- versions
@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.33.0", "0.33.0"), ("0.40.1", "0.33.0"), ("0.32.9", "0.27.1"), ("0.24.0", "0.23.0"), ("0.22.0", "0.22.1"),
        ("0.1.dev77+gabc", "0.33.0"), ("0.33.1.dev2+cu129", "0.33.0"),
    ],
)  # fmt: skip
def test_which_release_answers(version: str, release: str) -> None:
    assert nearest_release(version).version == release


def test_another_version_says_so() -> None:
    engine = Installed(engine_of("0.33.0", version="0.34.0"))
    assert (engine.title, engine.base.version) == ("vLLM 0.34.0 (installed)", "0.33.0")
    assert engine.differences == ()
    (note,) = predicted(engine, *BOTH).notes
    assert note == (
        "vLLM 0.34.0 was probed for its renaming rules; the modules and what they do with scales are those of vLLM "
        "0.33.0"
    )


@pytest.mark.parametrize(("read", "modules"), [("0.27.1", "0.25.0"), ("0.33.0", "0.27.1"), ("0.25.0", "0.33.0")])
def test_rules_of_one_release_on_the_modules_of_another(
    read: str, modules: str, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers of a release, from what was probed there and another release's modules: never wrong where the other
    release's own profile would be right, and unknown seldom.
    """
    base = next(release for release in RELEASES if release.version == modules)
    monkeypatch.setattr("core.engines.installed.nearest_release", lambda _version: base)
    engine, other = Installed(engine_of(read)), get_engine(f"vllm-{modules}")
    right = unknown = 0
    folders = checkpoint_folders()
    for name, folder in folders.items():
        truth = inspect(folder, engine=f"vllm-{read}", kv_cache_dtype="fp8")
        mine = engine.deliver(
            truth.declaration, engine.settle(truth.declaration, truth.wish), truth.tensors, truth.wish
        )
        theirs = other.deliver(
            truth.declaration, other.settle(truth.declaration, truth.wish), truth.tensors, truth.wish
        )
        if mine.load.outcome == "unknown":
            unknown += 1
        elif _answers(mine) == _answers(truth.deliveries):
            right += 1
        else:
            assert _answers(theirs) != _answers(truth.deliveries), name
    record_property("agreement", f"vLLM {read} probed, on the modules of {modules}: {right} of {len(folders)}")
    assert right / len(folders) > 0.9
    assert unknown / len(folders) < 0.05


def _answers(deliveries: Deliveries) -> Any:
    return (
        deliveries.load.outcome,
        deliveries.load.error,
        [(each.key, each.outcome, each.target) for each in deliveries.deliveries],
        [(layer.path, str(layer.final), layer.error) for layer in deliveries.attention],
    )


# ------------------------------------------------------------------------------------------------------- as an engine
def test_none_was_probed() -> None:
    assert "installed" not in list(ENGINES)
    with pytest.raises(UsageError) as raised:
        get_engine("installed")
    assert str(raised.value) == (
        "no vLLM of this machine was probed yet. Run `kvscope probe --python PATH` with its Python"
    )


def test_a_probed_one_is_an_engine_like_any_other() -> None:
    before = len(ENGINES)
    save(engine_of("0.27.1"))
    assert list(ENGINES)[-1] == "installed"
    assert len(ENGINES) == before + 1
    engine = get_engine("installed")
    assert engine is ENGINES["installed"] is installed_engine()
    assert (engine.id, engine.name, engine.version, engine.title) == (
        "installed", "vLLM", "0.27.1", "vLLM 0.27.1 (installed)",
    )  # fmt: skip
    assert engine.source.startswith(
        "31 quantization methods' rules and 460 model classes' loaders, read on 2026-01-02 with env/bin/python; module "
        "trees, KV methods and refusals are those of the built-in profile of vLLM 0.27.1 ("
    )
    save(engine_of("0.33.0"))
    assert get_engine("installed").version == "0.33.0"


def test_a_damaged_file_is_told_only_when_that_engine_is_asked_for(kept: Path) -> None:
    save(engine_of("0.33.0"))
    kept.write_text("{}")
    assert "installed" not in list(ENGINES)
    assert "installed" not in ENGINES
    with pytest.raises(KVScopeError, match=r"is no saved engine: its schema is not kvscope\.installed/1"):
        get_engine("installed")


def test_one_in_use_stays_when_its_file_goes_away(kept: Path) -> None:
    save(engine_of("0.33.0"))
    engine = get_engine("installed")
    kept.write_text("{")
    assert get_engine("installed") is engine
    kept.unlink()
    assert get_engine("installed") is ENGINES["installed"] is engine
    save(engine_of("0.27.1"))
    assert get_engine("installed").version == "0.27.1"


def test_reports_name_the_engine_and_its_notes(samples: Path) -> None:
    save(engine_of("0.33.0", version="0.34.0"))
    found = inspect(samples / "modelopt" / "qwen3-36layers-fp8-kvfp8", engine="installed")
    told = report(found)["engine"]
    assert (told["id"], told["version"]) == ("installed", "0.34.0")
    assert told["notes"] == list(found.deliveries.notes) != []
    assert f"note         {told['notes'][0]}" in text_report(found)
    assert found.settings.engine.detail.startswith("no difference from the built-in profile of vLLM 0.33.0")
    assert json.loads(json.dumps(told)) == told


def test_the_loader_runs_for_the_version_that_it_is(samples: Path) -> None:
    folder = samples / "modelopt" / "qwen3-36layers-fp8-kvfp8"
    save(engine_of("0.33.0"))
    setup = setup_for(inspect(folder, engine="installed"))
    assert setup is not None
    assert len(setup.layers) == 36
    save(engine_of("0.23.0"))
    with pytest.raises(UsageError) as raised:
        setup_for(inspect(folder, engine="installed"))
    assert str(raised.value) == (
        "the loader that KVScope runs is that of vLLM 0.33.0, vLLM 0.27.1, vLLM 0.25.0, not vLLM 0.23.0 (installed)'s. "
        "Verify with `--engine vllm-0.33.0`"
    )


def test_summary_counts_by_kind() -> None:
    def of(kind: Any, count: int) -> Iterator[Difference]:
        return (Difference(kind=kind, subject="a", change="added", detail="b") for _ in range(count))

    assert summary((*of("architecture", 1), *of("rule", 2), *of("method", 1))) == (
        "1 quantization method, 2 rules of methods, 1 architecture"
    )
    assert summary(()) == ""
