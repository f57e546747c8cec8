"""How numbers, shapes and sizes read, the same in every view."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import QCoreApplication, QLocale

from core import wording
from core.errors import KVScopeError

CORE = "Core"
"""The context of the core's sentences in the catalogues."""
_CJK = "[\u3000-\u9fff\uff00-\uffef]"
_CJK_SPACE = re.compile(f"(?<={_CJK}) +(?={_CJK})")


def QT_TRANSLATE_NOOP(context: str, text: str) -> str:  # noqa: ARG001 - Qt's own is typed as object
    """Marks a text for the translators' tools; :func:`translate` translates it where it is shown."""
    return text


def translate(context: str, text: str) -> str:
    """The text in the user's language."""
    return QCoreApplication.translate(context, text)


def spoken(sentence: str) -> str:
    """What the core says, in the user's language. Keys and the engines' own errors stay as they are."""
    if not isinstance(sentence, wording.Sentence):
        return sentence
    text = wording.spoken(sentence, partial(QCoreApplication.translate, CORE))
    # A full stop that was there already stays the only one, and between Chinese words no space is due.
    return _CJK_SPACE.sub("", re.sub(r"(?:\.(?=。)|(?<=。)[。. ]+)", "", text))


def complaint(error: BaseException) -> str:
    """What an error says, in the user's language."""
    return spoken(error.message) if isinstance(error, KVScopeError) else str(error)


def unmarked(text: str) -> str:
    """A menu's text without its mnemonic: "&Open" or, as in Chinese, "打开(&O)"."""
    return re.sub(r"\(&\w\)", "", text).replace("&", "")


def number(value: float, digits: int = 5) -> str:
    """A scale in at most so many significant digits: "0.03412", "3.7e-40", "NaN", "inf"."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    if value == int(value) and abs(value) < 1e5:
        return f"{value:.1f}"
    text = f"{value:.{digits}g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def exact(value: float) -> str:
    """A scale with every digit that tells it apart."""
    return number(value) if not math.isfinite(value) else repr(value)


def values(stored: Sequence[float]) -> str:
    """One number, or the range of several: "0.031 to 0.044"."""
    if not stored:
        return ""
    if len(stored) == 1:
        return number(stored[0])
    finite = [value for value in stored if math.isfinite(value)]
    if not finite:
        return number(stored[0])
    low, high = min(finite), max(finite)
    spread = number(low) if low == high else f"{number(low, 3)} – {number(high, 3)}"
    return spread if len(finite) == len(stored) else f"{spread}, {number(math.nan)}"


def shape(size: Sequence[int]) -> str:
    """A tensor's shape: "scalar" for (), "8 × 1 × 1" for (8, 1, 1)."""
    return " × ".join(str(part) for part in size) if size else QCoreApplication.translate("Text", "scalar")


def size(count: int) -> str:
    """Bytes in binary units: "12.4 GiB"."""
    return _locale().formattedDataSize(count, 1, QLocale.DataSizeFormat.DataSizeIecFormat)


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return _locale().toString(value)


def plural(number: int, one: str, many: str) -> str:
    """One of two translated phrases by a count, which takes the place of ``{count}``."""
    return (one if number == 1 else many).format(count=count(number))


def milliseconds(value: float) -> str:
    """A duration in milliseconds as "0.42 ms", "380 ms" or "3.1 s"."""
    if value < 10:
        return f"{value:.2f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _locale() -> QLocale:
    """The user's; American English where the system has only the C locale, which does not part thousands."""
    system = QLocale()
    return QLocale("en_US") if system.language() is QLocale.Language.C else system
