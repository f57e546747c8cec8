"""Every model of the window under Qt's own tester, while the window is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QAbstractItemModel, QAbstractTableModel, Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QTableView

from app.models import backends, comparison, engines, keys, problems, records
from app.window import Window
from app.workspace import TABS
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


def test_every_table_keeps_qts_rules_while_the_window_is_used(
    window: Window, opened: Open, idle: Idle, samples: Path
) -> None:
    opened(GEMMA)
    workspace = window.workspace
    models: dict[int, QAbstractItemModel] = {}
    for name in TABS:
        workspace.show_tab(name)
        idle()
    for view in workspace.findChildren(QTableView):
        models[id(view.model())] = view.model()
    own = {
        made
        for module in (backends, comparison, engines, keys, problems, records)
        for made in vars(module).values()
        if isinstance(made, type) and issubclass(made, QAbstractTableModel) and made is not QAbstractTableModel
    }
    assert {type(model) for model in models.values()} == own
    for model in models.values():
        QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal, model)
    workspace.keys.set_all_tensors(True)
    idle()
    workspace.keys.set_filter("layer:3")
    workspace.selection.select([workspace.keys.table.id_at(0) or ""])
    workspace.keys.clear_filter()
    window.session.compare(str(samples / QWEN))
    idle()
    workspace.keys.set_all_tensors(False)
    for model in models.values():
        for column in range(model.columnCount()):
            model.sort(column, Qt.SortOrder.DescendingOrder)
    workspace.header.kv_cache_dtype.pick("fp8")
    idle()
    workspace.show_tab("gpu")
    workspace.gpu.run()
    idle()
    window.actions_table["theme_dark"].trigger()
    window.actions_table["reload"].trigger()
    idle()
    assert window.session.digest is not None
    window.session.stop_comparing()
