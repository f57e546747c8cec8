"""The installed vLLM beside the nearest built-in profile, on real checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.engines import ENGINES, INSTALLED, get_engine
from core.engines.installed import Installed
from core.engines.saved import save
from core.inspection import inspect
from core.installation import installed_note, names_of
from core.matrix import matrix
from core.report.matrix import matrix_as_data, matrix_text
from tests.core.engines.installed_vllm import engine_of, rules_of
from tests.core.engines.installed_vllm import mapper as new_mapper
from tests.core.engines.recorded import installed_vllm, recorded_vllm
from tests.core.spoken import left_in_english

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSCOPE_DATA", str(tmp_path / "data"))


def test_the_real_one_is_compared_with_its_nearest_profile(samples: Path) -> None:
    """Whichever real vLLM this runs with: what is said agrees with what was read."""
    save(installed_vllm())
    engine = get_engine(INSTALLED)
    assert isinstance(engine, Installed)
    columns = matrix(inspect(samples / QWEN))
    assert [column.engine for column in columns] == list(ENGINES)
    assert columns[-1].title == f"vLLM {engine.version} (installed)"
    note = installed_note(columns)
    assert note is not None
    expected = "iffers from" if engine.differences else "o difference from"
    assert expected in note.text
    assert f"the built-in profile of vLLM {engine.base.version}" in note.text
    text = "\n".join(note.others)
    for kind in ("method", "architecture"):
        count = sum(each.kind == kind for each in engine.differences)
        assert bool(count) == (kind in text)
    assert f"vLLM {engine.version} as installed here" in matrix_text(columns)


def test_vllm_0_30_in_particular(samples: Path) -> None:
    save(recorded_vllm())
    columns = matrix(inspect(samples / QWEN))
    note = installed_note(columns)
    assert note is not None
    assert note.text.startswith(
        "Differs from the built-in profile of vLLM 0.27.1 in 1 quantization method, 30 rules of"
    )
    assert note.text.endswith("On this checkpoint it does the same as the built-in profile of vLLM 0.27.1.")
    assert note.concerning == (
        "modelopt: rule added: checkpoint rule suffix: .g_idx -> dropped (applied)",
        (
            "qwen3.Qwen3ForCausalLM: loader changed: load_weights was rewritten "
            "(predictions follow the loader as it was)"
        ),
    )
    assert note.others[0] == ("fewer: 1 quantization method: bitsandbytes (a checkpoint that declares it is refused)")
    assert any(line.startswith("fewer: 13 architectures: ") for line in note.others)
    assert any(line.startswith("more: 31 architectures: ") for line in note.others)
    text = matrix_text(columns)
    assert f"The installed vLLM: {note.text}" in text
    data = matrix_as_data(columns)
    assert data["installed"] == {
        "text": note.text, "concerning": list(note.concerning), "others": list(note.others)
    }  # fmt: skip


def test_where_the_rules_of_the_method_differ_the_consequence_is_told(samples: Path) -> None:
    def without_its_rule(document: dict) -> None:
        rules = rules_of(document, "modelopt")
        rules["regex"] = [rule for rule in rules["regex"] if "[kv]_proj" not in rule[0] and "(?<!" not in rule[0]]
        document["methods"]["modelopt"]["cache_scale_mapper"] = new_mapper(document, **rules)

    save(engine_of("0.33.0", without_its_rule))
    columns = matrix(inspect(samples / QWEN))
    note = installed_note(columns)
    assert note is not None
    assert "On this checkpoint 72 keys end differently: it serves 0 of 36 layers" in note.text
    assert note.text.endswith("the built-in profile of vLLM 0.33.0 36 of 36.")
    assert any("modelopt: rule removed: cache-scale rule regex:" in line for line in note.concerning)
    assert any("(not applied)" in line for line in note.concerning)


def test_a_checkpoint_that_it_no_longer_loads(samples: Path) -> None:
    def without_quark(document: dict) -> None:
        del document["methods"]["quark"]

    save(engine_of("0.33.0", without_quark))
    note = installed_note(matrix(inspect(samples / GEMMA)))
    assert note is not None
    assert "quark: method removed: vLLM 0.33.0 has no such quantization method" in note.concerning[0]
    assert note.others == ("fewer: 1 quantization method: quark (a checkpoint that declares it is refused)",)


def test_what_is_said_is_a_sentence_throughout(samples: Path) -> None:
    def older(document: dict) -> None:
        rules = rules_of(document, "modelopt")
        rules["regex"] = rules["regex"][1:]
        document["methods"]["modelopt"]["cache_scale_mapper"] = new_mapper(document, **rules)
        del document["methods"]["quark"]

    inspection = inspect(samples / QWEN)
    for engine in (recorded_vllm(), engine_of("0.33.0", older), engine_of("0.33.0", lambda _: None)):
        save(engine)
        note = installed_note(matrix(inspection))
        assert note is not None
        told = (note.text, *note.concerning, *note.others)
        assert {text: left for text in told if (left := left_in_english(text))} == {}


def test_none_without_an_installed_one(samples: Path) -> None:
    columns = matrix(inspect(samples / QWEN))
    assert installed_note(columns) is None
    assert matrix_as_data(columns)["installed"] is None
    assert names_of(()) == ()
