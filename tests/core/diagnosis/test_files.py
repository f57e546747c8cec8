from __future__ import annotations

from pathlib import Path

from core.inspection import inspect
from tests.core.diagnosis.build import MODELOPT, Folder, Tensors, Value, codes, finding, llama
from tests.core.diagnosis.examples import EXAMPLES, GOOD, K0, K1, V0, V1


def test_a_truncated_shard(tmp_path: Path) -> None:
    found = finding(EXAMPLES["broken-file"](tmp_path), "broken-file")
    assert found.keys == (K1, V1)
    assert found.evidence == "b.safetensors was cut short: its tensors take 8 bytes, but only 4 follow its header."
    assert found.fix == "Download or copy the file again."


def test_a_missing_shard(tmp_path: Path) -> None:
    found = finding(EXAMPLES["shard-missing"](tmp_path), "shard-missing")
    assert found.keys == (K1, V1)
    assert found.evidence == "b.safetensors is not there: 2 keys, 2 KV scales among them."


def test_an_index_that_points_elsewhere(tmp_path: Path) -> None:
    found = finding(EXAMPLES["index-disagrees"](tmp_path), "index-disagrees")
    assert found.keys == (V1, "model.norm.weight")
    assert found.evidence == (
        "model.safetensors.index.json: 1 key in no shard, 1 key in another shard; 1 KV scale among them."
    )
    assert found.remedy == "repair-index"


def test_thousands_of_other_keys_do_not_bury_the_scales(tmp_path: Path) -> None:
    there: dict[str, Value] = {f"model.layers.0.mlp.experts.{number}.weight": 0.5 for number in range(1000)}
    shard: dict[str, Tensors] = {"a.safetensors": there | GOOD}
    inspection = inspect(Folder(tmp_path, llama(MODELOPT), shard, {"lm_head.weight": "a.safetensors"}).write())
    found = finding(inspection, "index-disagrees")
    assert found.keys[:4] == (K0, V0, K1, V1)
    assert len(found.keys) == 200
    assert "1,004 keys not in the index; 4 KV scales among them" in found.evidence


def test_a_key_in_two_shards(tmp_path: Path) -> None:
    inspection = EXAMPLES["duplicate-key"](tmp_path)
    assert finding(inspection, "duplicate-key").keys == (K0,)
    assert inspection.verdict.text == "All 4 k and v scales reach the 2 attention layers of vLLM 0.33.0."


def test_a_key_in_two_shards_with_two_values(tmp_path: Path) -> None:
    shards: dict[str, Tensors] = {"a.safetensors": GOOD, "b.safetensors": {K0: 0.09}}
    weight_map = dict.fromkeys(GOOD, "a.safetensors") | {"x": "b.safetensors"}
    inspection = inspect(Folder(tmp_path, llama(MODELOPT), shards, weight_map).write())
    assert finding(inspection, "duplicate-key").keys == (K0,)
    assert finding(inspection, "conflict").consequence == "Layer 0 ends with k = 0.089844."
    assert inspection.verdict.outcome == "degraded"


def test_a_pair_in_two_shards(tmp_path: Path) -> None:
    found = finding(EXAMPLES["split-pair"](tmp_path), "split-pair")
    assert found.keys == (K0, V0, K1, V1)
    assert found.evidence == f"2 pairs: {K0} is in a.safetensors, {V0} in b.safetensors."


def test_an_overlay_that_the_index_does_not_name(tmp_path: Path) -> None:
    found = finding(EXAMPLES["unindexed-scales"](tmp_path), "unindexed-scales")
    assert found.keys == (K0, V0, K1, V1)
    assert found.remedy == "repair-index"


def test_mistrals_second_copy_is_no_overlay(tmp_path: Path) -> None:
    shards = {"model-1.safetensors": GOOD, "consolidated.safetensors": GOOD}
    inspection = inspect(Folder(tmp_path, llama(MODELOPT), shards, dict.fromkeys(GOOD, "model-1.safetensors")).write())
    assert codes(inspection, "error", "warning") == []


def test_an_empty_tensor(tmp_path: Path) -> None:
    inspection = EXAMPLES["unreadable-scale"](tmp_path)
    assert finding(inspection, "unreadable-scale").keys == (K1,)
    assert inspection.verdict.outcome == "fails"
