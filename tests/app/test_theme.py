from __future__ import annotations

import itertools
import re

import pytest
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QImage, QPainter, QPalette
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QScrollBar,
    QTabBar,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.actions import specs
from app.panels.parts import Button, CheckBox
from app.panels.reading import Passage
from app.status import Status
from app.theme import icons, status, style
from app.theme.palettes import DARK, LIGHT, Accent, Colours, Tone, contrast
from app.theme.theme import palette, theme
from resources import resource

TONES: tuple[Tone, ...] = ("ok", "warning", "error", "missing", "info", "neutral")
both = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#123456", "#123456") == 1


@both
def test_text_is_readable_on_every_surface(colours: Colours) -> None:
    surfaces = (colours.window, colours.base, colours.alternate, colours.raised, colours.hover)
    for surface in surfaces:
        assert contrast(colours.text, surface) >= 7
        assert contrast(colours.muted, surface) >= 4.5
        assert contrast(colours.accent, surface) >= 4.5
    assert contrast(colours.on_selected, colours.selected) >= 7
    assert contrast(colours.on_accent, colours.accent) >= 4.5


@both
@pytest.mark.parametrize("tone", TONES)
def test_every_tone_is_readable_where_it_is_used(colours: Colours, tone: Tone) -> None:
    accent = colours.tone(tone)
    for surface in (colours.base, colours.alternate, colours.window, accent.tint):
        assert contrast(accent.ink, surface) >= 4.5
    assert contrast(colours.text, accent.tint) >= 7  # the verdict's sentence
    assert contrast(colours.muted, accent.tint) >= 4.5  # what stands beside it
    assert contrast(accent.ink, colours.selected) >= 3  # a status shape in a selected row


@both
def test_series_can_be_told_from_the_ground(colours: Colours) -> None:
    for series in (colours.series_k, colours.series_v, colours.series_q):
        assert contrast(series, colours.base) >= 3


def _drawn(of: Status, side: int = 40) -> QImage:
    image = QImage(side, side, QImage.Format.Format_Grayscale8)
    image.fill(QColor("white"))
    painter = QPainter(image)
    status.paint(painter, QRectF(2, 2, side - 4, side - 4), of, QColor("black"))
    painter.end()
    return image


def test_every_status_has_a_shape_and_a_word_of_its_own(qtbot: QtBot) -> None:
    """In one colour: no status is told by colour alone."""
    drawn = {of: bytes(_drawn(of).constBits()) for of in Status}
    for first, second in itertools.combinations(Status, 2):
        different = sum(a != b for a, b in zip(drawn[first], drawn[second], strict=True))
        assert different > 80, (first, second)
    assert len({status.word(of) for of in Status}) == len(Status)
    assert all(status.meaning(of).endswith(".") for of in Status)


@pytest.mark.parametrize("of", list(Status))
def test_shapes_stay_in_their_box(qtbot: QtBot, of: Status) -> None:
    box = status.shape(of).boundingRect()
    assert QRectF(-0.56, -0.56, 1.12, 1.12).contains(box)


def test_every_bundled_icon_can_be_drawn(qtbot: QtBot) -> None:
    files = sorted(resource("icons").glob("*.svg"))
    assert len(files) > 40
    for file in files:
        assert QSvgRenderer(str(file)).isValid(), file.name
    for spec in specs():
        if spec.icon:
            assert not icons.icon(spec.icon, "#000000", "#888888").isNull()


def test_icons_take_the_colour_asked_for(qtbot: QtBot) -> None:
    image = icons.pixmap("ok", "#ff0000", 32).toImage()
    shown = {
        image.pixelColor(x, y).name() for x in range(32) for y in range(32) if image.pixelColor(x, y).alpha() > 250
    }
    assert shown == {"#ff0000"}


def test_the_theme_changes_palette_icons_and_tells(qtbot: QtBot, qapp: QApplication) -> None:
    current = theme()
    current.set_mode("light")
    light_icon = current.status_icon(Status.DROPPED)
    with qtbot.waitSignal(current.changed):
        current.set_mode("dark")
    assert qapp.palette().window().color() == QColor(DARK.window)
    assert current.status_icon(Status.DROPPED).cacheKey() != light_icon.cacheKey()
    assert isinstance(current.icon("copy"), QIcon)
    with qtbot.assertNotEmitted(current.changed):
        current.set_mode("dark")
    current.set_mode("light")
    assert theme() is current


@both
def test_the_palette_sets_disabled_text_apart(qtbot: QtBot, colours: Colours) -> None:
    made = palette(colours)
    role = made.ColorRole.Text
    assert made.color(made.ColorGroup.Disabled, role) != made.color(made.ColorGroup.Active, role)


@both
def test_the_style_sheet_takes_its_colours_from_the_palette(qtbot: QtBot, colours: Colours) -> None:
    made = palette(colours)
    for name, role in style.ROLES.items():
        wanted = getattr(colours, name)
        meant = wanted.ink if isinstance(wanted, Accent) else wanted
        found = getattr(QPalette.ColorRole, "".join(part.capitalize() for part in role.split("-")))
        assert made.color(found).name() == meant, name
    assert re.search(r"#[0-9a-f]{6}\b", style.style_sheet()) is None


@both
def test_the_pictures_of_the_style_sheet_can_be_seen_in_both_palettes(qtbot: QtBot, colours: Colours) -> None:
    for name in style.PICTURES.values():
        file = resource("icons", f"{name}.svg")
        assert QSvgRenderer(str(file)).isValid()
        (ink,) = set(re.findall(r"#[0-9a-f]{6}", file.read_text()))
        for surface in (colours.window, colours.base, colours.raised):
            assert contrast(ink, surface) >= 3


@both
def test_a_tick_has_the_colour_of_the_palette(qtbot: QtBot, colours: Colours) -> None:
    theme().set_mode("dark" if colours.dark else "light")
    box = CheckBox("ticked")
    qtbot.addWidget(box)
    box.show()

    def drawn() -> set[str]:
        image = box.grab().toImage()
        return {image.pixelColor(x, y).name() for x in range(16) for y in range(image.height())}

    assert colours.accent not in drawn()
    box.setChecked(True)
    assert {colours.accent, colours.on_accent} <= drawn()
    theme().set_mode("light")
    qtbot.waitUntil(lambda: theme().settled, timeout=60_000)


def _made() -> QWidget:
    """A widget of each kind that the style sheet speaks of."""
    made = QWidget()
    rows = QVBoxLayout(made)
    ticked, wrong, dim = CheckBox("ticked"), QLineEdit("wrong"), QLabel("dim")
    ticked.setChecked(True)
    wrong.setProperty("invalid", True)
    dim.setProperty("dim", True)
    tabs, table, bar = QTabBar(), QTableWidget(2, 2), QScrollBar(Qt.Orientation.Horizontal)
    tabs.setTabsClosable(True)
    for title in ("front", "behind"):
        tabs.addTab(title)
    box = QComboBox()
    box.addItem("chosen")
    for widget in (
        ticked,
        wrong,
        dim,
        tabs,
        box,
        table,
        bar,
        Button("main", "save", primary=True),
        Passage("a", small=True),
    ):
        rows.addWidget(widget)
    made.resize(300, 420)
    return made


@pytest.mark.parametrize("kind", ["plain", "flat", "primary", "tabs"])
def test_what_has_the_keyboard_is_marked_once(qtbot: QtBot, kind: str) -> None:
    """By a border or a ground of its own; not by Fusion's frame around the words as well."""
    theme()
    page = QWidget()
    rows = QVBoxLayout(page)
    made: QWidget = Button("press", "save", flat=kind == "flat", primary=kind == "primary")
    if kind == "tabs":
        made = QTabBar()
        made.addTab("front")
    other = QLineEdit()
    rows.addWidget(made)
    rows.addWidget(other)
    qtbot.addWidget(page)
    with qtbot.waitActive(page, timeout=60_000):
        page.show()
        page.activateWindow()
    other.setFocus()
    before = made.grab().toImage()
    made.setFocus(Qt.FocusReason.TabFocusReason)
    page.setAttribute(Qt.WidgetAttribute.WA_KeyboardFocusChange)  # as a key that moves the focus does
    assert made.hasFocus()
    after = made.grab().toImage()
    assert after != before
    if kind != "tabs":
        inside = after.rect().adjusted(3, 3, -3, -3)
        assert after.copy(inside) == before.copy(inside)


def test_widgets_follow_the_theme_the_hidden_ones_later(qtbot: QtBot) -> None:
    """Hundreds of hidden widgets may not hold the window while those on the screen change."""
    current = theme()
    current.set_mode("light")
    shown, hidden = _made(), _made()
    for widget in (shown, hidden):
        qtbot.addWidget(widget)
        with qtbot.waitExposed(widget, timeout=60_000):
            widget.show()
    hidden.hide()
    light = shown.grab().toImage()
    current.set_mode("dark")
    at_once = shown.grab().toImage()
    qtbot.waitUntil(lambda: current.settled, timeout=60_000)
    fresh = _made()
    qtbot.addWidget(fresh)
    with qtbot.waitExposed(fresh, timeout=60_000):
        fresh.show()
    wanted = fresh.grab().toImage()
    assert light != wanted
    assert at_once == wanted
    assert hidden.grab().toImage() == wanted
    current.set_mode("light")
    assert shown.grab().toImage() == light
    qtbot.waitUntil(lambda: current.settled, timeout=60_000)
