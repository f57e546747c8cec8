"""Models that build attention layers without the engine's cache config, as the real vLLM ran them: whatever
``--kv-cache-dtype`` says, such a layer keeps its KV cache in the model's dtype, and a compressed-tensors scheme still
makes it fp8.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.architectures import build_model, known_architectures
from core.inspection import Inspection, inspect
from core.loading.forward_result import ForwardOptions
from core.loading.verify import verify
from tests.golden_data import exception, golden, write_case

GOLDEN = golden("vllm-0.33.0", "cache_config")
FALCON = "FalconForCausalLM-modelopt"
SAYS = "vLLM 0.33.0 does not pass --kv-cache-dtype on to both attention layers: the cache stays in bfloat16 there."


def _inspect(folder: Path, case: str, kv_cache_dtype: str, version: str = "0.33.0") -> Inspection:
    recorded = GOLDEN["cases"][case]
    path = write_case(folder / case, recorded["config"], recorded["tensors"])
    return inspect(path, engine=f"vllm-{version}", kv_cache_dtype=kv_cache_dtype, dtype="bfloat16")


def _recorded() -> Iterator[Any]:
    for version, runs in GOLDEN["results"].items():
        for kv_cache_dtype, cases in runs.items():
            for case, truth in cases.items():
                yield pytest.param(version, case, kv_cache_dtype, truth, id=f"{version}-{case}-{kv_cache_dtype}")


@pytest.mark.parametrize(("version", "case", "kv_cache_dtype", "truth"), list(_recorded()))
def test_layers_end_as_in_the_engine(tmp_path: Path, version: str, case: str, kv_cache_dtype: str, truth: Any) -> None:
    inspection = _inspect(tmp_path, case, kv_cache_dtype, version)
    deliveries = inspection.deliveries
    if "refused" in truth:
        assert deliveries.load.outcome == "refused"
        assert exception(deliveries.load.error) == exception(truth["refused"])
        return
    assert deliveries.load.outcome == "loads"
    resolved = inspection.settings.kv_cache_dtype_resolved
    ended = {
        layer.path: {"dtype": layer.own_cache or resolved, **{role: layer.final[role] for role in ("k", "v", "q")}}
        for layer in deliveries.attention
    }
    assert ended == truth
    if version == "0.33.0":  # the older ones load these models in loops, which are predicted only
        loaded = verify(inspection, device="cpu")
        assert (loaded.outcome, loaded.disagreements) == ("loads", ())


def test_which_models_do_not_pass_the_cache_config_on() -> None:
    """All that the survey of vLLM 0.33.0 found among its 415 architectures, built with an fp8 cache."""
    found = set()
    for name in known_architectures():
        root = build_model(name, {"num_hidden_layers": 1}, method=None)
        if root is not None and not all(node.cache_config for _, node in root.attention_layers()):
            found.add(name)
    assert found == {
        *("CLIPModel", "ColBERTModernBertModel", "ColModernVBertForRetrieval", "ColUltraVBertForRetrieval"),
        *("ExaoneMoeMTP", "FalconForCausalLM", "ModernBertForSequenceClassification"),
        *("ModernBertForTokenClassification", "ModernBertModel", "ModernVBertModel", "SiglipModel"),
    }


def test_the_finding_says_that_no_option_helps(tmp_path: Path) -> None:
    for number, kv_cache_dtype in enumerate(("fp8", "auto", "int8_per_token_head")):
        inspection = _inspect(tmp_path / str(number), FALCON, kv_cache_dtype)
        (found,) = (each for each in inspection.findings if each.code == "cache-not-quantized")
        assert found.evidence == SAYS
        assert found.layers == (0, 1)
        assert len(found.keys) == 4
        assert "k = 1.0 (set by the engine)" in found.consequence
        assert found.fix.startswith("Nothing in the checkpoint can change this")
        assert not {each.code for each in inspection.findings} & {"undeclared", "run-time-scales"}
        (queries,) = (each for each in inspection.findings if each.code == "q-applied")
        assert queries.fix == "Leave these scales out on export."
        assert inspection.verdict.outcome == "degraded"
        assert "keeps the KV cache in bfloat16, so none is used" in inspection.verdict.text


def test_a_scheme_of_compressed_tensors_decides_alone(tmp_path: Path) -> None:
    """Also against an explicit bfloat16, which every other model obeys (vLLM 0.33.0, ``Attention.__init__``)."""
    inspection = _inspect(tmp_path, "FalconForCausalLM-compressed", "bfloat16")
    assert {layer.own_cache for layer in inspection.deliveries.attention} == {"fp8"}
    assert not [each for each in inspection.findings if each.code == "cache-not-quantized"]
    llama = _inspect(tmp_path, "LlamaForCausalLM-compressed", "bfloat16")
    assert {layer.own_cache for layer in llama.deliveries.attention} == {None}


def test_attention_is_run_on_the_layers_own_cache(tmp_path: Path) -> None:
    loaded = verify(_inspect(tmp_path, FALCON, "fp8"), device="cpu", forward=ForwardOptions())
    assert loaded.forward is not None
    assert [dict(layer.losses) for layer in loaded.forward.measured] == [{}, {}]
