"""Agreement with what real engines did with the shared checkpoints and cases: method, KV-cache dtype, refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.quantization import ConfigSource, Declaration, read_declaration, refusal, resolve_kv_cache_dtype
from tests.core.quantization.folder import Files, Folder

VERSIONS = {"0.22.1": (0, 22), "0.23.0": (0, 23), "0.25.0": (0, 25), "0.27.1": (0, 27), "0.33.0": (0, 33)}
# Refusals that come from the CPU run, that release's Transformers or a tiny config: no declaration decides them.
LIMITS = re.compile(
    r"is_act_and_mul|position_ids|StrictDataclass|AmbiguousGlobal|Config' object has no attribute|not supported for now"
)
# The oldest two name AWQ by their CPU kernels, which no GPU user sees.
CPU_NAMES = {"0.22.1": {"cpu_awq"}, "0.23.0": {"awq_marlin"}}
Run = tuple[str, str, ConfigSource, dict[str, Any]]


def deliveries(shared: Path, version: str) -> Iterator[Run]:
    for path in sorted((shared / "golden" / f"vllm-{version}" / "deliveries").glob("*.json")):
        tool, dtype, _ = path.name.split(".")
        for name, outcome in json.loads(path.read_bytes()).items():
            yield f"{tool}/{name}", dtype, Folder(shared / "checkpoints" / tool / name), outcome


def cases(shared: Path, version: str) -> Iterator[Run]:
    written = json.loads((shared / "golden" / "vllm-0.33.0" / "cases.json").read_bytes())
    run = json.loads((shared / "golden" / f"vllm-{version}" / "cases.json").read_bytes())["cases"]
    for name, case in run.items():
        config = written["configs"][written["cases"][name]["config"]]
        yield name, written["cases"][name]["kv_cache_dtype"], Files(config=config), case["outcome"]


def layers_of(declaration: Declaration) -> tuple[str, ...]:
    return ("MLAAttention",) if declaration.model_type == "deepseek_v3" else ("Attention",)


def disagreement(version: str, dtype: str, source: ConfigSource, outcome: dict[str, Any]) -> str:
    """What differs first, "" when all agrees."""
    declaration = read_declaration(source, platform="cpu")
    layers = layers_of(declaration)
    found = refusal(
        declaration, kv_cache_dtype=dtype, dtype="bfloat16", attention_layers=layers, version=VERSIONS[version]
    )
    if "refused" in outcome:
        real = outcome["refused"].split(":", 1)[0]
        return "" if found and found.exception == real else f"refused: {outcome['refused'][:90]} / {found}"
    if found:
        return f"runs / {found.error}"
    configured = resolve_kv_cache_dtype(dtype, declaration, attention_layers=layers).configured
    if configured != outcome["kv_cache_dtype"]:
        return f"dtype {outcome['kv_cache_dtype']} / {configured}"
    if declaration.method != outcome["quantization"] and outcome["quantization"] not in CPU_NAMES.get(version, ()):
        return f"method {outcome['quantization']} / {declaration.method}"
    return ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [deliveries, cases])
def test_agreement_with_vllm(shared: Path, version: str, kind: Any) -> None:
    differing, checked = [], 0
    for name, dtype, source, outcome in kind(shared, version):
        if LIMITS.search(outcome.get("refused", "")):
            continue
        checked += 1
        if why := disagreement(version, dtype, source, outcome):
            differing.append(f"{name} {dtype}: {why}")
    print(f"vLLM {version} {kind.__name__}: {checked - len(differing)} of {checked} agree")
    assert checked > 200 if kind is deliveries else checked > 800
    assert differing == []


TOOLS = {
    "llmcompressor": "llm-compressor",
    "nvidia-modelopt": "modelopt",
    "amd-quark": "quark",
    "auto-round": "auto-round",
}


def test_producers_are_the_tools_that_wrote_the_checkpoints(shared: Path) -> None:
    for name, told in json.loads((shared / "checkpoints" / "inventory.json").read_bytes()).items():
        tool, _, version = told["made_with"]["tool"].partition(" ")
        producer = read_declaration(Folder(shared / "checkpoints" / name)).producer
        if name.endswith(("-hfsave", "-vllmfq")):
            assert producer is None, name  # a plain save_pretrained: no file says anything
            continue
        assert producer is not None, name
        assert producer.tool == TOOLS[tool], name
        if producer.version is not None and tool != "llmcompressor":
            assert producer.version == version, name


def test_kv_algorithms_are_those_asked_of_the_tools(shared: Path) -> None:
    """The checkpoints' names say what the tool was asked for."""
    wrong = []
    for path in sorted((shared / "checkpoints").glob("*/*/")):
        name, scheme = path.name, read_declaration(Folder(path)).kv_scheme
        expected: str | None = "FP8"
        if "nvfp4" in name.partition("kv")[2]:
            expected = "NVFP4"
        elif "int8" in name and "w8a8int" not in name:
            expected = "INT8"
        elif name in NOT_DECLARED:
            expected = None
        if (scheme.algorithm if scheme else None) != expected:
            wrong.append(f"{name}: {scheme}")
    assert wrong == []


NOT_DECLARED = (
    "falcon-fp8-kvfp8",  # scales are there, but ModelOpt did not see fused attention as KV-quantized
    "llama-fp8-kvfp8-hfsave",
    "llama-fp8-kvfp8-vllmfq",
    "llama-fp8-nokv",
    "llama-fp8-attnfp8",
    "llama-output_act-fp8",
)
