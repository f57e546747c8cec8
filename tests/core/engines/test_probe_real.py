"""The probe against the real package: KVSCOPE_VLLM_PYTHON names Pythons with a real vLLM, separated as in PATH.

Without the variable there is nothing to collect. Run it for each release whose data changed; it takes half a minute.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from core.engines import get_engine
from core.engines.installed import Installed
from core.engines.probe import probe
from core.engines.probed import ProbedEngine, release_reading
from core.engines.saved import save
from core.engines.vllm.releases import RELEASES
from core.inspection import inspect, reinspect
from core.naming.mapper import WeightsMapper
from tests.places import checkpoint_folders

PYTHONS = [path for path in os.environ.get("KVSCOPE_VLLM_PYTHON", "").split(os.pathsep) if path]

if PYTHONS:

    @pytest.fixture(scope="module", params=PYTHONS)
    def engine(request: pytest.FixtureRequest) -> ProbedEngine:
        return probe(Path(request.param), timeout=600)

    def test_every_method_has_the_rules_of_the_built_in_profile(engine: ProbedEngine, record_property: Any) -> None:
        release = next(each for each in RELEASES if each.version == engine.version)
        assert engine.reading.unread_methods == {}
        assert set(engine.reading.methods) == set(release.backends)
        for name, method in engine.reading.methods.items():
            backend = release.backends[name]
            for known, found in (
                (backend.get_cache_scale_mapper(), method.cache_scales),
                (backend.get_checkpoint_weight_mapper(), method.checkpoint),
            ):
                rules = found.mapper if found is not None else WeightsMapper()
                assert _by_kind(rules) == _by_kind(known), name
                assert found is None or (found.unread, found.disagreements) == ((), ())
            assert set(method.ignored_suffixes) == set(backend.ignored_suffixes), name
        count = len(release.backends)
        record_property("agreement", f"vLLM {engine.version} probed: the rules of {count} of {count} methods")

    def test_it_reads_what_is_bundled_for_that_release(engine: ProbedEngine, record_property: Any) -> None:
        bundled = release_reading(f"vllm-{engine.version}")
        assert bundled is not None
        assert engine.reading.complete
        for name, cls in bundled.architectures.items():
            assert engine.reading.architectures.get(name, cls) == cls
        both = bundled.classes.keys() & engine.reading.classes.keys()
        assert len(both) > 450
        for name in both:
            mine, theirs = bundled.classes[name], engine.reading.classes[name]
            assert (mine.passes, mine.written, mine.source) == (theirs.passes, theirs.written, theirs.source), name
            assert theirs.mapper is None or theirs.mapper.disagreements == (), name
        record_property("agreement", f"vLLM {engine.version} probed: the loaders of {len(both)} of {len(both)} classes")

    def test_no_difference(engine: ProbedEngine) -> None:
        assert Installed(engine).differences == ()

    def test_predictions_are_those_of_the_built_in_profile(
        engine: ProbedEngine, record_property: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KVSCOPE_DATA", str(tmp_path))
        save(engine)
        assert get_engine("installed").version == engine.version
        folders = checkpoint_folders()
        for name, folder in folders.items():
            own = inspect(folder, engine=f"vllm-{engine.version}", kv_cache_dtype="fp8")
            installed = reinspect(own, engine="installed")
            if own.verdict.outcome == "unknown":
                assert installed.verdict.text.replace(" (installed)", "") == own.verdict.text, name
                continue
            assert (installed.findings, installed.verdict) == (own.findings, own.verdict), name
            assert installed.deliveries.load == own.deliveries.load
            assert installed.deliveries.deliveries == own.deliveries.deliveries
            assert installed.deliveries.attention == own.deliveries.attention
        count = len(folders)
        record_property("agreement", f"vLLM {engine.version} probed: predictions of {count} of {count} checkpoints")


def _by_kind(mapper: WeightsMapper) -> list[tuple[object, ...]]:
    rows = [(rule.kind.value, rule.pattern, rule.replacement, rule.shard) for rule in mapper.rules]
    return sorted(rows, key=lambda row: str(row[0]))
