"""The rules read deliveries, not vLLM: under SGLang they say what SGLang does."""

from __future__ import annotations

from pathlib import Path

from core.engines import ENGINES
from core.export import plan_export
from core.inspection import inspect, reinspect
from tests.core.diagnosis.build import codes, finding
from tests.core.diagnosis.test_catalog import check_form
from tests.places import CHECKPOINTS, SAMPLES

SGLANG = next(name for name in ENGINES if name.startswith("sglang"))
TITLE = "SGLang " + SGLANG.removeprefix("sglang-")


def test_scales_that_a_model_without_quant_config_never_sees() -> None:
    inspection = inspect(SAMPLES / "modelopt" / "qwen3-36layers-fp8-kvfp8", engine=SGLANG)
    assert codes(inspection, "error", "warning") == ["dropped-scale"]
    assert inspection.verdict.text == (
        f"None of the 72 k and v scales reaches an attention layer of {TITLE}: all 36 attention layers run at 1.0."
    )


def test_the_option_is_spelled_as_the_engine_does() -> None:
    inspection = inspect(CHECKPOINTS / "quark" / "llama-fp8-kvfp8", engine=SGLANG)
    assert finding(inspection, "cache-not-quantized").fix == "Start the engine with --kv-cache-dtype fp8_e4m3."


def test_mla_layers_receive_them_there() -> None:
    inspection = inspect(SAMPLES / "modelopt" / "deepseekv3-30layers-fp8-kvfp8", engine=SGLANG)
    assert inspection.verdict.text == f"All 60 k and v scales reach the 30 attention layers of {TITLE}."


def test_notes_about_another_engine_are_left_out() -> None:
    folder = CHECKPOINTS / "quark" / "llama-fp8-kvfp8perchannel"
    assert "declaration-note" in codes(inspect(folder))
    assert "declaration-note" not in codes(inspect(folder, engine=SGLANG))


def test_every_checkpoint_under_every_engine(checkpoint_folder: Path) -> None:
    opened = inspect(checkpoint_folder)
    for engine in ENGINES:
        inspection = reinspect(opened, engine=engine)
        for found in inspection.findings:
            check_form(found)
        failed = inspection.verdict.outcome == "fails"
        ends = inspection.deliveries.load.outcome in ("raises", "refused")
        assert failed == (ends or any(layer.error for layer in inspection.deliveries.attention))
        if inspection.verdict.outcome in ("fails", "degraded"):
            assert codes(inspection, "error", "warning")


def test_what_another_name_mends_is_mended_by_an_export(checkpoint_folder: Path) -> None:
    inspection = inspect(checkpoint_folder, engine=SGLANG)
    renamed = {found.code for found in inspection.findings if found.remedy == "rename"}
    left = {found.code for found in plan_export(inspection).findings_predicted} if renamed else set()
    assert not renamed & left


def test_what_no_name_makes_a_scale_is_said(shared: Path) -> None:
    global_scale = finding(inspect(shared / "checkpoints/quark/llama-fp8-kvnvfp4", engine=SGLANG), "dropped-scale")
    assert (global_scale.remedy, global_scale.fix.startswith("Multiply by 6 on export")) == ("rescale", True)
    latent = finding(inspect(shared / "checkpoints/quark/deepseekv3-fp8-kvfp8", engine=SGLANG), "dropped-scale")
    assert (latent.remedy, latent.fix.startswith("Calibrate the KV cache itself")) == ("", True)
