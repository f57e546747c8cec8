"""Every architecture that vLLM 0.33.0 registers has a module tree, and every tree says where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from core.architectures import how_surveyed, known_architectures, why_not_surveyed
from core.engines import Fed, Wish, get_engine
from core.quantization import read_declaration
from tests.core.quantization.folder import Files
from tests.golden_data import golden

MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
WISH = Wish(kv_cache_dtype="fp8", dtype="bfloat16")
REGISTERED = 415
OWN_FOR_CPUS = {"DeepseekV32ForCausalLM", "DeepseekV32MTPModel", "GlmMoeDsaForCausalLM"}


def test_every_registered_architecture_is_known(record_property: Callable[[str, object], None]) -> None:
    names = known_architectures()
    kinds = Counter(how_surveyed(name).partition(":")[0].partition(" ")[0] for name in names)
    unknown = REGISTERED - len(names)
    record_property(
        "agreement",
        f"vllm-0.33.0 architectures: {kinds['executed']} executed, {kinds['alias']} alias, {kinds['static']} static, "
        f"{unknown} unknown, of {REGISTERED}",
    )
    assert unknown == 0
    assert set(kinds) == {"executed", "alias", "static"}
    assert kinds["executed"] >= 360
    assert kinds["static"] <= 35
    assert set(golden("vllm-0.33.0", "architectures")) <= set(names)


@pytest.mark.parametrize("name", [name for name in known_architectures() if "static" in how_surveyed(name)])
def test_a_static_architecture_says_that_no_run_confirms_it(name: str) -> None:
    engine = get_engine("vllm-0.33.0")
    config = {
        "architectures": [name],
        "model_type": "llama",
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "quantization_config": MODELOPT,
    }
    declaration = read_declaration(Files(config=config))
    settings = engine.settle(declaration, WISH)
    found = engine.deliver(declaration, settings, [Fed("model.layers.0.self_attn.k_proj.k_scale", (), (0.5,))], WISH)
    assert found.load.outcome != "unknown"
    assert not found.confirmed
    (note,) = found.notes
    assert note.startswith(f"not confirmed by execution: the modules of {name} are read from vLLM 0.33.0's sources (")
    assert why_not_surveyed(name) == ""


def test_an_executed_architecture_needs_no_note() -> None:
    engine = get_engine("vllm-0.33.0")
    declaration = read_declaration(Files(config={"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}))
    found = engine.deliver(declaration, engine.settle(declaration, WISH), [], WISH)
    assert found.confirmed
    assert found.notes == ()


def test_where_the_engine_has_another_model_for_cpus() -> None:
    found = {name for name in known_architectures() if "CPUs" in how_surveyed(name)}
    assert found == OWN_FOR_CPUS
