"""One field of a real config missing, null or of another type: what the real vLLM 0.33.0 did with each, and what is
predicted. The recording names the checkpoint (or the config of the golden cases), the field, what stood there, and the
exception; "" where vLLM built the model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.quantization import read_declaration, refusal
from tests.core.quantization.folder import Files
from tests.golden_data import exception, golden

RECORDED = Path(__file__).with_name("odd-fields-vllm-0.33.0.json")
GONE = "(left out)"


def test_what_an_odd_field_makes_of_a_config(shared: Path, record_property: Callable[[str, object], None]) -> None:
    agreed, misses = 0, Counter[str]()
    for base, file, field, value, expected in _rows():
        files = _files(shared, base)
        _put(files[file], field.split("/"), value)
        declaration = read_declaration(
            Files(**{name.removesuffix(".json"): content for name, content in files.items()}), platform="cpu"
        )
        layers = ("MLAAttention",) if declaration.model_type == "deepseek_v3" else ("Attention",)
        found = refusal(declaration, kv_cache_dtype="fp8", dtype="bfloat16", attention_layers=layers)
        if exception(found.error if found else "") == expected:
            agreed += 1
        else:
            misses[f"{base}, {field} = {value!r}: {expected}, predicted {found.error if found else 'no refusal'}"] += 1
    record_property(
        "agreement", f"vllm-0.33.0 odd fields of quantization configs: {agreed} of {agreed + len(misses)} agree"
    )
    assert list(misses) == []


def _rows() -> Iterator[tuple[str, str, str, Any, str]]:
    for base, files in json.loads(RECORDED.read_bytes()).items():
        for file, fields in files.items():
            for field, outcomes in fields.items():
                for value, expected in outcomes:
                    yield base, file, field, value, expected


def _files(shared: Path, base: str) -> dict[str, Any]:
    if base.startswith("case "):
        return {"config.json": json.loads(json.dumps(golden("vllm-0.33.0", "cases")["configs"][base[5:]]))}
    names = ("config.json", "hf_quant_config.json")
    paths = [shared / "checkpoints" / base / name for name in names]
    return {path.name: json.loads(path.read_bytes()) for path in paths if path.is_file()}


def _put(tree: Any, field: list[str], value: Any) -> None:
    *parents, last = [int(part) if part.isdecimal() else part for part in field]
    for part in parents:
        tree = tree[part]
    if value == GONE:
        del tree[last]
    else:
        tree[last] = value
