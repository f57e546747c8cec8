"""What engines say of a checkpoint can be said in another language: no English is left but the engines' own errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.text import CORE
from app.translations import texts
from core.architectures import how_surveyed, known_architectures, why_static
from core.backends.rules_file import read_rules
from core.engines import ENGINES, Wish, get_engine
from core.engines.installed import Installed
from core.engines.outcome import Deliveries
from core.engines.saved import load_installed, save
from core.engines.vllm.releases import RELEASES
from core.errors import KVScopeError
from core.inspection import inspect
from core.quantization import Declaration, read_declaration
from core.wording import Sentence
from resources import resource
from tests.core.engines.installed_vllm import engine_of, mapper, rules_of
from tests.core.engines.test_installed import BOTH, LLAMA, predicted
from tests.core.quantization.folder import Files
from tests.core.spoken import left_in_english
from tests.places import checkpoint_folders

WRONG = {
    "method": Wish(method="no such one"),
    "architecture": Wish(architecture="no such one"),
    "kv_cache_dtype": Wish(kv_cache_dtype="no such one"),
    "dtype": Wish(dtype="no such one"),
}
ASKED = [*ENGINES, "vllm-0.26.1", "vllm-0.99.0", "vllm-0.20.0"]


def english_of(deliveries: Deliveries) -> set[str]:
    """What is left of a prediction's reasons and notes; an engine's exception stands as it is, whole or its message."""
    words = set[str]()
    told = [(deliveries.load.reason, deliveries.load.error), *((note, None) for note in deliveries.notes)]
    told += [(each.reason, each.error or deliveries.load.error) for each in deliveries.deliveries]
    for text, error in dict.fromkeys(told):
        words.update(left_in_english(text, but=(error, error.partition(": ")[2]) if error else ()))
    return words


@pytest.mark.parametrize("engine", ASKED)
def test_predictions_of_every_checkpoint(engine: str) -> None:
    left: dict[str, set[str]] = {}
    said = 0
    for name, folder in checkpoint_folders().items():
        inspection = inspect(folder, engine=engine)
        settings = inspection.settings
        choices = (settings.engine, settings.method, settings.architecture, settings.kv_cache_dtype, settings.dtype)
        words = english_of(inspection.deliveries)
        words.update(word for choice in choices for word in left_in_english(choice.detail))
        said += sum(isinstance(each.reason, Sentence) for each in inspection.deliveries.deliveries)
        if words:
            left[name] = words
    assert left == {}
    assert said


@pytest.mark.parametrize("engine", ASKED)
def test_engines_say_what_they_are(engine: str) -> None:
    profile = get_engine(engine)
    assert left_in_english(profile.title) == left_in_english(profile.how_checked) == []
    assert isinstance(profile.how_checked, Sentence)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "files",
    [
        {"config": {}},
        {"config": {"architectures": ["NobodyKnowsForCausalLM"]}},
        {"config": {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True, "model_type": "t5"}},
        {"config": {**LLAMA, "torch_dtype": "float32"}},
        {"config": {**LLAMA, "model_type": "gemma2", "torch_dtype": "float16"}},
        {"config": {**LLAMA, "quantization_config": {"quant_method": "nobody's"}}},
        {"config": {**LLAMA, "quantization_config": {"quant_method": "mxfp4"}}},
        {"config": {**LLAMA, "architectures": ["MllamaForCausalLM"], "quantization_config": {"quant_method": "mxfp4"}}},
        {"params": {"dim": 64, "n_layers": 1, "n_heads": 4, "head_dim": 16, "hidden_dim": 128, "vocab_size": 64}},
    ],
    ids=lambda files: str(files.get("config", files))[:60],
)
def test_what_is_refused_or_not_known(engine: str, files: dict[str, Any]) -> None:
    profile = get_engine(engine)
    declaration = read_declaration(Files(**files))
    settings = profile.settle(declaration, Wish())
    assert english_of(profile.deliver(declaration, settings, (), Wish())) == set()
    assert [left_in_english(choice.detail) for choice in (settings.architecture, settings.dtype)] == [[], []]


@pytest.mark.parametrize(
    ("engine", "wrong"),
    [
        (engine, wrong)
        for engine in ENGINES
        for wrong in WRONG
        if (engine, wrong) != ("tensorrt-llm", "method")  # it takes any: the dtype of the cache alone decides
    ],
)
def test_choices_that_do_not_exist(engine: str, wrong: str) -> None:
    with pytest.raises(KVScopeError, match="no such one") as failure:
        get_engine(engine).settle(Declaration(), WRONG[wrong])
    assert left_in_english(failure.value.message, but=["no such one"]) == []


def test_engines_that_do_not_exist() -> None:
    for name in ("nobody", "installed"):
        with pytest.raises(KVScopeError) as failure:
            get_engine(name)
        assert left_in_english(failure.value.message) == []


# ------------------------------------------------------------------------------------------------------ architectures
@pytest.mark.parametrize("release", [release.id for release in RELEASES])
def test_reasons_from_the_survey_are_in_the_catalogue(release: str) -> None:
    known = {source for context, source in texts() if context == CORE}
    static = [name for name in known_architectures(release) if how_surveyed(name, release).startswith("static")]
    for name in static:
        why = why_static(name, release)
        assert isinstance(why, Sentence)
        assert why.template in known
        assert how_surveyed(name, release) == f"static: {why}"
    assert static or release not in ("vllm-0.33.0", "vllm-0.22.1")
    assert why_static("LlamaForCausalLM", release) == why_static("NobodyKnows", release) == ""


def test_every_reason_written_by_hand_is_in_the_catalogue() -> None:
    written = json.loads(resource("architectures", "static_by_hand.json").read_text("utf-8"))["architectures"]
    assert written
    assert {(CORE, entry["why"]) for entry in written.values()} <= set(texts())


# ---------------------------------------------------------------------------------------------------- installed engine
def _another_rule(document: dict[str, Any]) -> None:
    rules = rules_of(document, "fp8")
    rules["suffix"] = [[".k_proj.output_scale", ".attn.k_scale_2"], [".v_proj.output_scale", None], [".new", None]]
    document["methods"]["fp8"]["cache_scale_mapper"] = mapper(document, **rules)


def _in_another_order(document: dict[str, Any]) -> None:
    rules = rules_of(document, "fp8")
    rules["suffix"] = rules["suffix"][::-1]
    document["methods"]["fp8"]["cache_scale_mapper"] = mapper(document, **rules)


def _new_method(document: dict[str, Any]) -> None:
    document["methods"]["fp8"]["ignored_suffixes"] = [".other", ".one_more"]
    document["methods"]["mine"] = {**document["methods"]["fp8"], "config_class": "my_plugin.quant.MyConfig"}


def _no_method(document: dict[str, Any]) -> None:
    document["methods"].pop("fp8")


def _asks(document: dict[str, Any]) -> None:
    document["methods"]["fp8"]["asks_cache_scale"] = True


def _no_llama(document: dict[str, Any]) -> None:
    document["architectures"].pop("LlamaForCausalLM")


def _new_architecture(document: dict[str, Any]) -> None:
    document["architectures"]["NewForCausalLM"] = document["architectures"]["LlamaForCausalLM"]
    document["architectures"]["OtherForCausalLM"] = {"error": "ImportError: no"}


def _rewritten(document: dict[str, Any]) -> None:
    for row in document["classes"].values():
        row["source"] = "another"


def _loops(document: dict[str, Any]) -> None:
    for row in document["classes"].values():
        row["passes"] = "own"


@pytest.mark.parametrize(
    "change",
    [
        _another_rule,
        _in_another_order,
        _new_method,
        _no_method,
        _asks,
        _no_llama,
        _new_architecture,
        _rewritten,
        _loops,
    ],
)
def test_an_installed_engine(change: Callable[[dict[str, Any]], None]) -> None:
    engine = Installed(engine_of("0.33.0", change))
    assert engine.differences
    words = [*left_in_english(engine.title), *left_in_english(engine.how_checked)]
    for each in engine.differences:
        words += [*left_in_english(each.text), *left_in_english(each.consequence)]
    for architecture in ("LlamaForCausalLM", "NewForCausalLM", "OtherForCausalLM"):
        for method in ("fp8", "mine"):
            if method in engine.release.backends or method == "fp8":
                config = {**LLAMA, "architectures": [architecture]}
                words += english_of(predicted(engine, *BOTH, method=method, config=config))
    assert words == []


def test_a_damaged_file_of_an_installed_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSCOPE_DATA", str(tmp_path))
    path = save(engine_of("0.33.0"))
    whole = json.loads(path.read_text("utf-8"))
    damaged: list[Any] = [{}, {**whole, "probe": 3}, {**whole, "probe": {"schema": "other"}}]
    for field, value in (("methods", 3), ("names", [3]), ("complete", 1), ("mappers", {}), ("classes", None)):
        damaged.append({**whole, "probe": {**whole["probe"], field: value}})
    for text in ("no JSON", *map(json.dumps, damaged)):
        path.write_text(text, "utf-8")
        with pytest.raises(KVScopeError, match="is no saved engine") as failure:
            load_installed()
        assert left_in_english(failure.value.message) == []


# ---------------------------------------------------------------------------------------------------------- rules files
@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("rule = [", "Invalid value (at end of document)"),
        ("name = 'a'", ""),
        ("rule = [3]", ""),
        ("name = 3\n[[rule]]\nkind = 'regex'", ""),
        ("[[rule]]\nkind = 'glob'", ""),
        ("[[rule]]\nkind = 'regex'", ""),
        ("[[rule]]\nkind = 'regex'\npattern = 'a'", ""),
        ("[[rule]]\nkind = 'regex'\npattern = 'a'\nto = 'b'", ""),
        ("[[rule]]\nkind = 'stacked'\npattern = 'a'\nreplacement = 'b'\nshard = [1]", ""),
        ("[[rule]]\nkind = 'regex'\npattern = '('\nreplacement = 'b'", "missing ), unterminated subpattern"),
        ("#" * (1 << 21), ""),
    ],
    ids=lambda text: text[:40],
)
def test_files_of_rules(text: str, own: str, tmp_path: Path) -> None:
    """``own`` are the words of Python's own readers."""
    path = tmp_path / "acme.toml"
    path.write_text(text)
    with pytest.raises(KVScopeError) as failure:
        read_rules(path)
    assert isinstance(failure.value.message, Sentence)
    assert left_in_english(failure.value.message, but=[own] if own else []) == []


def test_a_load_that_fails_says_so_of_each_tensor_behind() -> None:
    told = predicted(Installed(engine_of("0.33.0")), "model.layers.0.self_attn.q_proj.output_scale.x", *BOTH)
    assert told.load.outcome == "raises"
    behind = told.deliveries[1:]
    assert {each.reason for each in behind} == {f"the load has already failed at {told.load.key}"}
    assert len({id(each.reason) for each in behind}) == 1  # one sentence, however many tensors there are
