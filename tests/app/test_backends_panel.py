"""The Backends tab and the pickers follow the engine."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt

from app.window import Window
from core.engines import get_engine
from core.engines.variants import methods_of
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
Idle = Callable[[], None]


def offered(window: Window, picker: str) -> list[str]:
    box = getattr(window.workspace.header, picker).box
    return [box.itemData(place) for place in range(box.count()) if box.itemData(place)]


def caption(window: Window) -> str:
    return window.workspace.backends._caption.text()


def test_sglang_is_compared_with_its_own_methods(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.workspace.header.engine.pick("sglang-0.5.23")
    window.workspace.show_tab("backends")
    idle()
    methods = methods_of(get_engine("sglang-0.5.23"))
    columns = window.workspace.backends.table.columns()
    assert columns[0].current
    assert columns[0].methods[0] == "modelopt_fp8"
    assert sorted(method for column in columns for method in column.methods) == sorted(methods)
    assert f"{len(methods)} backends of SGLang 0.5.23" in caption(window)
    assert offered(window, "method") == list(methods)
    assert "fp8_e4m3" in offered(window, "kv_cache_dtype")
    assert "turboquant_k8v4" not in offered(window, "kv_cache_dtype")
    window.menus["backends"].aboutToShow.emit()
    assert "petit_nvfp4" in {action.text() for action in window.menus["backends"].actions()}


def test_tensorrt_llm_is_compared_by_cache_dtypes(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.workspace.header.engine.pick("tensorrt-llm")
    window.workspace.show_tab("backends")
    idle()
    table = window.workspace.backends.table
    assert [column.methods for column in table.columns()] == [("fp8", "bfloat16"), ("nvfp4",), ("int8",)]
    assert "4 KV-cache dtypes of TensorRT-LLM" in caption(window)
    assert table.differs(1, 2)  # nvfp4 takes what fp8 ignores
    shown = table.data(table.index(1, 2), Qt.ItemDataRole.DisplayRole)
    assert shown.startswith("≠ ")
    assert offered(window, "method") == []
    assert "decides by the KV-cache dtype alone" in window.workspace.header.method.toolTip()


def test_a_backend_that_the_next_engine_does_not_have_is_left_behind(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.workspace.header.method.pick("gpt_oss_mxfp4")
    idle()
    window.workspace.header.engine.pick("sglang-0.5.23")
    idle()
    assert window.session.choices.engine == "sglang-0.5.23"
    assert window.session.choices.method == "mxfp4"  # SGLang's name of it
    window.workspace.header.engine.pick("tensorrt-llm")
    idle()
    assert window.session.choices.method is None
    assert window.session.inspection is not None
