from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from PySide6.QtCore import QAbstractItemModel, QModelIndex, Qt
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot

from app.digest import Digest
from app.models.backends import BackendTable, compare_backends
from app.models.groups import GroupTree, by_module, by_pattern, by_shard, pattern_of, shortened
from app.models.keys import Column, KeyTable, ScaleSource, cells_of
from app.models.problems import ProblemTable, ranges
from app.models.query import parse
from app.models.records import Record, RecordTable
from app.models.tensors import TensorSource
from app.status import Status
from core.backends import BACKENDS
from core.engines import get_engine
from core.engines.variants import variants_of
from core.progress import Progress
from tests.app.conftest import SAMPLES

Digested = Callable[[str], Digest]
LLAMA = "llmcompressor/llama-attn_fp8_tensor"
ROLES = [*range(14), KeyTable.StatusRole, KeyTable.IdRole]


def watched(model: QAbstractItemModel) -> QAbstractItemModelTester:
    return QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal, model)


def ask_everything(model: QAbstractItemModel, parent: QModelIndex | None = None) -> int:
    """Ask every cell for every role, and every header; returns how many cells there are."""
    parent = parent or QModelIndex()
    asked = 0
    if model.canFetchMore(parent):
        model.fetchMore(parent)
    for row in range(model.rowCount(parent)):
        for column in range(model.columnCount(parent)):
            index = model.index(row, column, parent)
            for role in ROLES:
                model.data(index, role)
            asked += 1
        if isinstance(model, GroupTree) and model.hasChildren(model.index(row, 0, parent)):
            asked += ask_everything(model, model.index(row, 0, parent))
    for column in range(model.columnCount(parent)):
        for role in ROLES:
            model.headerData(column, Qt.Orientation.Horizontal, role)
            model.headerData(column, Qt.Orientation.Vertical, role)
    return asked


def texts(model: QAbstractItemModel, column: int) -> list[str]:
    return [model.data(model.index(row, column)) for row in range(model.rowCount())]


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_model_keeps_qt_s_rules_on_every_sample(qtbot: QtBot, digested: Digested, sample: str) -> None:
    found = digested(sample)
    keys = KeyTable()
    watched(keys)
    keys.set_source(ScaleSource(found))
    assert ask_everything(keys) == len(found.rows) * len(Column)
    keys.set_query(parse("role:k layer:0-3"))
    keys.sort(Column.VALUE, Qt.SortOrder.DescendingOrder)
    keys.set_source(TensorSource(found.inspection.checkpoint.catalog, found))
    keys.set_query(parse("layers.0."))
    ask_everything(keys)
    keys.set_source(None)
    assert keys.rowCount() == 0

    problems = ProblemTable()
    watched(problems)
    problems.set_findings(found.inspection.findings)
    assert ask_everything(problems) == 5 * len(found.inspection.findings)

    names = [row.id for row in found.rows]
    for groups in (by_pattern(names, found.by_id), by_module(names, found.by_id), by_shard(found)):
        tree = GroupTree()
        tree.set_groups(groups)
        watched(tree)  # not before: Qt's tester fetches children inside the reset that brings them
        assert ask_everything(tree) >= len(groups)
        tree.refresh_theme()


def test_the_key_table_loses_no_reference_to_none(qtbot: QtBot, digested: Digested) -> None:
    """See tests/test_platform.py; here with the table that is asked most, through a view's own roles."""
    table = KeyTable()
    table.set_source(ScaleSource(digested(LLAMA)))
    cells = [table.index(row, column) for row in range(table.rowCount()) for column in range(len(Column))]
    before = sys.getrefcount(None)
    for number in range(1000):
        table.data(cells[number % len(cells)], Qt.ItemDataRole.CheckStateRole)
    assert abs(sys.getrefcount(None) - before) < 100


def test_cells_of_a_scale(qtbot: QtBot, digested: Digested) -> None:
    found = digested(LLAMA)
    row = found.by_id["model.layers.0.self_attn.q_scale"]
    cells = cells_of(row)
    assert cells[Column.STATUS] == "suspicious"
    assert cells[Column.KEY] == "model.layers.0.self_attn.q_scale"
    assert cells[Column.TARGET] == "model.layers.0.self_attn.attn.q_scale"
    assert cells[Column.DTYPE] == "BF16"
    assert cells[Column.SHAPE] == "1"
    assert float(cells[Column.VALUE]) == pytest.approx(row.values[0], rel=1e-4)
    zero_point = found.by_id["model.layers.0.self_attn.k_zero_point"]
    assert cells_of(zero_point)[Column.ROLE] == "k zp"


@pytest.mark.parametrize("column", list(Column))
@pytest.mark.parametrize("everything", [False, True], ids=["scales", "tensors"])
def test_sorting_orders_and_keeps_every_row(qtbot: QtBot, digested: Digested, column: Column, everything: bool) -> None:
    found = digested(LLAMA)
    table = KeyTable()
    table.set_source(TensorSource(found.inspection.checkpoint.catalog, found) if everything else ScaleSource(found))
    unsorted = texts(table, Column.KEY)
    table.sort(column, Qt.SortOrder.AscendingOrder)
    up = texts(table, Column.KEY)
    table.sort(column, Qt.SortOrder.DescendingOrder)
    assert sorted(up) == sorted(unsorted) == sorted(texts(table, Column.KEY))
    table.sort(-1)
    assert texts(table, Column.KEY) == unsorted


def test_sorting_by_value_is_by_number(qtbot: QtBot, digested: Digested) -> None:
    found = digested(LLAMA)
    table = KeyTable()
    table.set_source(ScaleSource(found))
    table.sort(Column.VALUE, Qt.SortOrder.AscendingOrder)
    values = [table.row_at(position) for position in range(table.rowCount())]
    numbers = [row.value for row in values if row is not None and row.value is not None]
    assert numbers == sorted(numbers)


def test_positions_follow_filter_and_order(qtbot: QtBot, digested: Digested) -> None:
    found = digested(LLAMA)
    table = KeyTable()
    table.set_source(ScaleSource(found))
    table.set_query(parse("role:q"))
    shown = list(table.visible_ids())
    assert shown == [row.id for row in found.rows if row.role == "q"]
    assert [table.position_of(name) for name in shown] == list(range(len(shown)))
    hidden = next(row.id for row in found.rows if row.role == "k")
    assert table.position_of(hidden) is None
    assert table.position_of("no such row") is None
    assert table.id_at(0) == shown[0]
    assert table.id_at(len(shown)) is None
    table.set_query(parse("nothing at all"))
    assert table.rowCount() == 0
    assert table.total() == len(found.rows)


@pytest.mark.parametrize(
    "query",
    ["k_proj", "K_PROJ", "-weight", "layers.1. k_", "dtype:bf16", "shape:scalar", "file:model", "role:k", "status:susp",
     "problem:uninitialised", "dtype:f8 layers.0.", "shape:64", "-dtype:bf16 -k_"],
)  # fmt: skip
def test_the_quick_filter_over_all_tensors_accepts_what_the_words_say(
    qtbot: QtBot, digested: Digested, query: str
) -> None:
    found = digested(LLAMA)
    catalog = found.inspection.checkpoint.catalog
    source = TensorSource(catalog, found)
    codes = {name: {finding.code for finding in of} for name, of in found.findings_by_id.items()}
    expected = []
    for number, name in enumerate(catalog.names):
        accepted = True
        for term in parse(query).terms:
            row = found.by_id.get(name)
            match term.field:
                case "":
                    hit = term.text.lower() in name.lower()
                case "dtype":
                    hit = catalog.dtype(number).lower().startswith(term.text)
                case "shape":
                    wanted = () if term.text == "scalar" else (int(term.text),)
                    hit = catalog.shape(number) == wanted
                case "file":
                    hit = term.text in catalog.shard(number)
                case _:
                    hit = row is not None and term.test(row, codes.get(name, set()))
            accepted = accepted and hit is not term.negated
        if accepted:
            expected.append(number)
    assert source.accepted(parse(query)).tolist() == expected


def test_all_tensors_show_what_is_known_of_scales(qtbot: QtBot, digested: Digested) -> None:
    found = digested(LLAMA)
    source = TensorSource(found.inspection.checkpoint.catalog, found)
    scale = source.number_of("model.layers.0.self_attn.k_scale")
    weight = source.number_of("model.layers.0.self_attn.k_proj.weight")
    assert scale is not None
    assert weight is not None
    assert source.cell(scale, Column.STATUS) == "loaded"
    assert source.cell(weight, Column.STATUS) == ""
    assert source.cell(weight, Column.KEY) == "model.layers.0.self_attn.k_proj.weight"
    assert " × " in source.cell(weight, Column.SHAPE)


def test_patterns_join_layers(qtbot: QtBot, digested: Digested) -> None:
    found = digested("modelopt/deepseekv3-30layers-fp8-kvfp8")
    groups = by_pattern([row.id for row in found.rows], found.by_id)
    assert [(group.pattern, len(group.ids), group.status) for group in groups] == [
        ("model.layers.*.self_attn.k_proj.k_scale", 30, Status.DROPPED),
        ("model.layers.*.self_attn.v_proj.v_scale", 30, Status.DROPPED),
    ]
    assert [group.label for group in groups] == ["k_proj.k_scale", "v_proj.v_scale"]
    assert pattern_of("12.x.h3.7") == "*.x.h3.*"


def test_modules_join_single_children(qtbot: QtBot, digested: Digested) -> None:
    found = digested(LLAMA)
    groups = by_module([row.id for row in found.rows], found.by_id)
    assert [(group.label, len(group.ids)) for group in groups] == [("model.layers", 12)]
    assert groups[0].children is not None
    layers = groups[0].children()
    assert [(group.label, len(group.ids)) for group in layers] == [("0.self_attn", 6), ("1.self_attn", 6)]
    assert layers[0].status is Status.SUSPICIOUS
    assert layers[0].children is not None
    assert [group.label for group in layers[0].children()][:2] == ["k_scale", "k_zero_point"]


def test_modules_of_a_name_that_is_also_a_module(qtbot: QtBot) -> None:
    groups = by_module(["a.b", "a.b.c", "a.d"], {})
    assert [group.label for group in groups] == ["a"]
    assert groups[0].children is not None
    assert [group.label for group in groups[0].children()] == ["b", "b", "d"]


def test_backends_are_grouped_by_what_they_do(qtbot: QtBot, digested: Digested) -> None:
    found = digested(LLAMA)
    variants = variants_of(get_engine("vllm-0.33.0"), found.inspection.settings)
    columns = compare_backends(found.inspection, variants, Progress())
    assert columns[0].current
    assert columns[0].methods[0] == "compressed-tensors"
    assert sorted(method for column in columns for method in column.methods) == sorted(BACKENDS)
    assert len(columns) > 1
    table = BackendTable()
    watched(table)
    table.show_columns(columns)
    table.show_rows(found.rows)
    assert table.rowCount() == len(found.rows) + 1
    assert ask_everything(table) == table.rowCount() * (len(columns) + 1)
    marked = [
        (row, column)
        for row in range(1, table.rowCount())
        for column in range(2, table.columnCount())
        if table.differs(row, column)
    ]
    assert marked
    for row, column in marked:
        assert table.data(table.index(row, column)).startswith("≠ ")
        assert table.data(table.index(row, column), Qt.ItemDataRole.BackgroundRole) is not None


def test_records(qtbot: QtBot) -> None:
    table = RecordTable(["a", "b"], [1])
    watched(table)
    table.set_records([Record(("x", "1"), icon="ok", tone="ok"), Record(("y", "2"))])
    assert ask_everything(table) == 4
    table.refresh_theme()
    assert table.record(1) == Record(("y", "2"))
    assert table.record(2) is None


def test_ranges() -> None:
    assert ranges([]) == ""
    assert ranges([3, 1, 2, 7, 9, 8, 8]) == "1-3, 7-9"
    assert ranges([5]) == "5"


@pytest.mark.parametrize("every", [False, True])
def test_many_rows_at_once_are_those_asked_for_one_by_one(qtbot: QtBot, digested: Digested, every: bool) -> None:
    found = digested(LLAMA)
    table = KeyTable()
    table.set_source(TensorSource(found.inspection.checkpoint.catalog, found) if every else ScaleSource(found))
    names = list(table.visible_ids())
    table.sort(Column.KEY, Qt.SortOrder.DescendingOrder)
    table.set_query(parse("layers.1"))
    shown = list(table.visible_ids())
    assert 0 < len(shown) < len(names)
    assert table.ids_between(1, len(shown) - 2) == shown[1:-1]
    assert table.positions_of([*names, "no such row"]).tolist() == list(range(len(shown)))
    assert table.positions_of(()).tolist() == []
    cells = [tuple(table.index(row, column).data() for column in Column) for row in range(len(shown))]
    assert table.source is not None
    assert table.source.lines(table.shown().chosen([*names, "no such row"])) == cells


def test_labels_get_shorter_in_what_they_share_and_stay_apart() -> None:
    whisper = [
        f"{half}.layers.*.{attention}.{role}_scale"
        for half, attention in (("encoder", "self_attn"), ("decoder", "self_attn"), ("decoder", "encoder_attn"))
        for role in "kv"
    ]
    steps = shortened(whisper)
    assert [shorter[0] for shorter in steps[:2]] == ["encoder…self_attn.k_scale", "encoder…self_attn.v_scale"]
    assert steps[4] == ["decoder…encoder_attn.k_scale"]
    t5 = [f"{half}.block.*.SelfAttention.{role}_proj.{role}_scale" for half in ("encoder", "decoder") for role in "kv"]
    assert shortened(t5)[0] == ["encoder…k_proj.k_scale", "encoder…k_scale"]
    for at in range(2):
        shown = [shorter[at] for shorter in shortened(t5)]
        assert len(set(shown)) == len(shown)
    assert shortened(["k_scale"]) == [[]]
    assert shortened(["a.b.k_scale", "b.a.k_scale"]) == [[], []]  # the same parts in another order
    assert shortened([]) == []


@pytest.mark.parametrize("shape", ["8x1x1", "[8,1,1]", "8,1,1", "8×1×1", '"8 × 1 × 1"', '"(8, 1, 1)"'])
def test_a_shape_may_be_written_in_any_way_among_all_tensors(digested: Digested, shape: str) -> None:
    found = digested("llmcompressor/llama-32layers-kv_attn_head")
    query = parse(f"shape:{shape}")
    for source in (ScaleSource(found), TensorSource(found.inspection.checkpoint.catalog, found)):
        assert len(source.accepted(query)) == 64
