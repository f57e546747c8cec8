from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from PySide6.QtGui import QGuiApplication

from app.observation import observation_of
from app.window import Window
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
