"""What walks share never makes one backend or release answer for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.engines import Wish
from core.engines.outcome import Deliveries
from core.engines.vllm import walk
from core.engines.vllm.engine import Vllm
from core.engines.vllm.releases import RELEASES, Release
from core.inspection import Inspection, inspect

SAMPLES = (
    "modelopt/deepseekv3-30layers-fp8-kvfp8",
    "quark/gemma3-26layers-fp8-kvfp8",
    "modelopt/qwen3-36layers-fp8-kvfp8",
)


def _predicted(inspection: Inspection, engine: Vllm, method: str) -> Deliveries:
    wish = Wish(method=method)
    settings = engine.settle(inspection.declaration, wish)
    return engine.deliver(inspection.declaration, settings, inspection.tensors, wish)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.id)
def test_answers_do_not_depend_on_who_was_asked_before(samples: Path, name: str, release: Release) -> None:
    inspection, engine = inspect(samples / name), Vllm(release)
    methods = ("modelopt", "fp8", "quark", "compressed-tensors", "awq", "gptq")
    warm = {method: _predicted(inspection, engine, method) for method in methods}
    assert len(set(map(str, warm.values()))) > 1
    for method in reversed(methods):
        walk._arrivals_of.clear()
        assert str(_predicted(inspection, engine, method)) == str(warm[method])


def test_backends_of_equal_rules_share_what_names_come_to(samples: Path) -> None:
    walk._arrivals_of.clear()
    inspection, engine = inspect(samples / "modelopt/qwen3-36layers-fp8-kvfp8"), Vllm(RELEASES[0])
    before = len(walk._arrivals_of)
    for method in ("awq", "gptq"):
        _predicted(inspection, engine, method)
    assert len(walk._arrivals_of) == before + 1
