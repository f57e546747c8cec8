from __future__ import annotations

import itertools

import pytest
from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QIcon, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.actions import specs
from app.status import Status
from app.theme import icons, status
from app.theme.palettes import DARK, LIGHT, Colours, Tone, contrast
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
