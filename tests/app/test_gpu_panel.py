from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from PySide6.QtGui import QGuiApplication

from app.observation import observation_of
from app.theme.theme import theme
from app.window import Window
from core.backends.kv_method import BaseKVCacheMethod, CacheSetup, Processed
from core.errors import KVScopeError
from core.loading.devices import Device
from core.loading.verification import Disagreement
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


def choose(window: Window, device: str) -> None:
    box = window.workspace.gpu.device
    box.setCurrentIndex(box.findData(device))


@pytest.fixture
def listed(window: Window, opened: Open, idle: Idle) -> Window:
    """A sample that loads, with the devices of this machine listed."""
    opened(QWEN)
    window.workspace.show_tab("gpu")
    idle()
    choose(window, "cpu")
    return window


def test_running_the_loader_makes_predicted_observed(listed: Window, idle: Idle) -> None:
    panel = listed.workspace.gpu
    assert panel.run_button.isEnabled()
    panel.run_button.click()
    assert panel.cancel_button.isVisible()
    idle()
    done = listed.session.verification
    assert done is not None
    assert done.agreed
    assert listed.workspace.banner.certainty.text() == "OBSERVED"
    assert panel.steps.rowCount() == len(done.steps)
    assert panel.held.rowCount() == len(done.held)
    panel.only_differences.setChecked(True)
    assert panel.held.rowCount() == 0
    panel.only_differences.setChecked(False)
    panel.held_view.selectRow(0)
    assert len(listed.workspace.selection.ids) == 1


def test_a_run_that_waited_for_devices_is_forgotten_where_none_can_be_listed(
    window: Window, opened: Open, idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> tuple[Device, ...]:
        raise KVScopeError("PyTorch cannot be imported")

    opened(QWEN)
    panel = window.workspace.gpu
    with monkeypatch.context() as patched:
        patched.setattr("core.loading.devices.list_devices", broken)
        window.actions_table["verify"].trigger()
        idle()
    assert "PyTorch cannot be imported" in panel.reason
    panel.list_devices()
    idle()
    assert panel.devices()
    assert window.session.verification is None


def test_a_load_that_raises_is_observed_too(window: Window, opened: Open, idle: Idle) -> None:
    opened(GEMMA)
    window.workspace.show_tab("gpu")
    idle()
    choose(window, "cpu")
    window.workspace.gpu.run()
    idle()
    assert window.workspace.banner.certainty.text() == "OBSERVED"
    assert window.workspace.banner.word == "Fails"
    assert "AttributeError" in window.workspace.gpu.note


def test_another_choice_makes_it_predicted_again(listed: Window, idle: Idle) -> None:
    listed.workspace.gpu.run()
    idle()
    listed.workspace.header.dtype.pick("float16")
    idle()
    assert listed.session.verification is None
    assert listed.workspace.banner.certainty.text() == "PREDICTED"


def test_a_contradiction_is_the_first_thing_said(listed: Window, idle: Idle) -> None:
    listed.workspace.gpu.run()
    idle()
    done = listed.session.verification
    assert done is not None
    listed.session.set_verification(replace(done, disagreements=(Disagreement(None, "layer 0 holds 2.0"),)))
    assert observation_of(listed.session.verification) == "contradicted"
    assert listed.workspace.banner.certainty.text() == "CONTRADICTED"
    assert "layer 0 holds 2.0" in listed.workspace.banner.text


def wrong_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile of vLLM that believes that v always takes k's value."""

    def process(
        self: BaseKVCacheMethod,
        held: Mapping[str, tuple[float, ...]],
        loaded: frozenset[str],
        cache: CacheSetup,
    ) -> Processed:
        done = right(self, held, loaded, cache)
        return replace(done, final={**done.final, "v": done.final["k"]})

    right = BaseKVCacheMethod.process
    monkeypatch.setattr(BaseKVCacheMethod, "process", process)


def test_a_prediction_that_is_wrong_is_the_first_problem(
    window: Window, opened: Open, idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_on_purpose(monkeypatch)
    opened(QWEN)
    window.workspace.show_tab("gpu")
    idle()
    choose(window, "cpu")
    table = window.workspace.problems.table
    before = table.findings()
    window.workspace.gpu.run()
    idle()
    assert window.workspace.banner.certainty.text() == "CONTRADICTED"
    first, *others = table.findings()
    assert tuple(others) == before
    assert (first.code, first.severity) == ("prediction-contradicted", "error")
    assert first.layers == tuple(range(36))
    assert len(first.keys) == 36
    assert all(key.endswith("v_scale") for key in first.keys)
    assert "model.layers.0.self_attn.attn, v: _v_scale holds" in first.evidence
    assert "They parted at: post-process." in first.consequence
    assert window.workspace.problems.detail.finding == first
    assert all(finding.severity == "info" for finding in before)
    assert window.workspace.tabs.tabText(0) == "Problems (1)"
    assert window.status.counts.text() == "1 error"
    assert window.workspace.banner.next_button.isVisible()
    window.actions_table["next_problem"].trigger()
    assert window.workspace.selection.current == first.keys[0]
    window.workspace.show_tab("problems")
    assert not window.workspace.problems.detail.filter_button.isEnabled()  # the filter knows what was predicted
    assert window.workspace.problems.detail.select_button.isEnabled()
    window.workspace.problems.choose(0)
    assert len(window.workspace.selection.ids) == 36
    monkeypatch.undo()
    window.session.reload()
    idle()
    window.workspace.gpu.run()
    idle()
    assert window.workspace.banner.certainty.text() == "OBSERVED"
    assert table.findings()[0].code == before[0].code
    assert window.workspace.tabs.tabText(0) == "Problems"
    assert window.status.counts.text() == "no problems"


def test_the_attention_is_plotted(listed: Window, idle: Idle) -> None:
    panel = listed.workspace.gpu
    assert not panel.projections.isEnabled()
    panel.forward.setChecked(True)
    assert panel.projections.isEnabled()
    assert panel.command() == f"kvscope verify {listed.session.path} --device cuda:0 --forward"
    panel.projections.setChecked(True)
    assert panel.command().endswith(" --forward --projections")
    panel.projections.setChecked(False)
    panel.run()
    idle()
    done = listed.session.verification
    assert done is not None
    assert done.forward is not None
    view = panel.attention
    assert panel.views.currentWidget() is view
    assert view.note == ""
    assert view.verdict.toPlainText().lower() == f"{done.forward.text}.".lower()
    assert view.verdict.toPlainText().startswith("All 36 layers with the scales received: 0.0")
    assert "synthetic, filling the range that the scale claims" in view.origin.text()
    assert view.canvas is not None
    assert view.canvas.drawn == {"received": 36, "one": 36, "swapped": 36}
    view.canvas.layer_chosen.emit("model.layers.5.self_attn.attn")
    assert {name.rpartition(".")[2] for name in listed.workspace.selection.ids} == {"k_scale", "v_scale"}
    assert all("layers.5." in name for name in listed.workspace.selection.ids)
    theme().set_mode("dark")
    assert view.canvas.drawn == {"received": 36, "one": 36, "swapped": 36}
    theme().set_mode("light")
    panel.forward.setChecked(False)
    panel.run()
    idle()
    assert "Tick “Run the attention too”" in view.note


def test_ranks_are_processes_whose_layers_are_told_apart(window: Window, opened: Open, idle: Idle) -> None:
    opened("llmcompressor/llama-32layers-kv_attn_head")
    window.workspace.show_tab("gpu")
    idle()
    choose(window, "cpu")
    panel = window.workspace.gpu
    panel.forward.setChecked(True)
    panel.ranks.setValue(2)
    assert not panel.forward.isEnabled()
    assert panel.command().endswith(" --device cuda:0 --tensor-parallel 2")
    panel.run()
    idle()
    done = window.session.verification
    assert done is not None
    assert (done.agreed, done.tensor_parallel, done.forward) == (True, 2, None)
    assert panel.held.rowCount() == len(done.held)
    rows = [panel.held.record(row) for row in (0, panel.held.rowCount() - 1)]
    assert [row.cells[0].split(":")[0] for row in rows if row is not None] == ["rank 0", "rank 1"]
    panel.held_view.selectRow(panel.held.rowCount() - 1)
    assert panel.steps.record(0) is not None


def test_modules_that_no_run_has_confirmed_stay_predicted(listed: Window, idle: Idle) -> None:
    listed.workspace.gpu.run()
    idle()
    done = listed.session.verification
    assert done is not None
    listed.session.set_verification(replace(done, confirmed=False))
    listed.workspace.gpu._show_result()
    assert listed.workspace.gpu._chip.text() == "AGREES"
    assert listed.workspace.banner.certainty.text() == "PREDICTED"


def test_a_cancelled_run_can_be_repeated(listed: Window, idle: Idle) -> None:
    panel = listed.workspace.gpu
    panel.run()
    panel.cancel_button.click()
    idle()
    assert panel.note == "Cancelled. Run it again when you like."
    assert listed.session.verification is None
    assert not panel.cancel_button.isVisible()
    panel.run()
    idle()
    assert listed.session.verification is not None


def test_without_cuda_the_reason_and_a_command_are_shown(listed: Window) -> None:
    panel = listed.workspace.gpu
    panel.show_devices(
        (Device(id="cpu", name="CPU"), Device(id="cuda", name="CUDA", reason="PyTorch finds no CUDA device"))
    )
    assert panel.reason == ("CUDA cannot be used here: PyTorch finds no CUDA device. On a machine with a GPU, run:")
    panel.copy_button.click()
    assert QGuiApplication.clipboard().text() == f"kvscope verify {listed.session.path} --device cuda:0"
    assert [panel.device.itemData(number) for number in range(panel.device.count())] == ["cpu"]


def test_a_gpu_is_chosen_where_there_is_one(listed: Window) -> None:
    panel = listed.workspace.gpu
    panel.show_devices((Device(id="cpu", name="CPU"), Device(id="cuda:0", name="NVIDIA H200", memory=139 << 30)))
    assert panel.device.currentText() == "cuda:0  NVIDIA H200, 139.0 GiB"
    assert panel.device.currentData() == "cuda:0"
    assert panel.reason == ""
    assert listed.status.device.text() == "cuda:0: NVIDIA H200"


def test_verify_runs_as_soon_as_the_devices_are_known(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.actions_table["verify"].trigger()
    idle()
    assert window.workspace.current_tab() == "gpu"
    assert window.workspace.banner.certainty.text() == "OBSERVED"


def test_an_engine_whose_loader_is_not_here_says_so(listed: Window, idle: Idle) -> None:
    listed.workspace.header.engine.pick("sglang-0.5.23")
    idle()
    panel = listed.workspace.gpu
    assert not panel.run_button.isEnabled()
    assert "choose it to verify" in panel.note
    panel.run()
    assert not listed.jobs.running()
    listed.workspace.header.engine.pick("vllm-0.33.0")
    idle()
    assert panel.run_button.isEnabled()


def test_the_command_for_a_gpu_repeats_what_was_chosen(listed: Window, idle: Idle) -> None:
    panel, session = listed.workspace.gpu, listed.session
    session.choose(replace(session.choices, kv_cache_dtype="fp8_e4m3", engine="vllm-0.27.1"))
    idle()
    assert panel.command() == (
        f"kvscope verify {session.path} --engine vllm-0.27.1 --kv-cache-dtype fp8_e4m3 --device cuda:0"
    )
    panel.show_devices((Device(id="cpu", name="cpu"), Device(id="cuda", name="", reason="there is no GPU")))
    assert panel.reason.endswith("On a machine with a GPU, run:")
    session.choose(replace(session.choices, engine="sglang-0.5.23"))
    idle()
    assert panel.reason == ""  # no GPU would help: the loader is not SGLang's
    assert not panel.copy_button.isVisible()
