"""The texts that are translated, and the catalogues of their translations: ``python -m app.translations``.

Reads every call of ``tr``, ``translate`` and ``QT_TRANSLATE_NOOP`` from the sources (Qt's lupdate misses those in
f-strings) and the templates of the core's sentences (``core/wording.py``), brings each ``resources/translations/*.ts``
up to date, and compiles it with Qt's lrelease. The .ts files are Qt's own format: Linguist opens them.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from app.text import CORE
from core.wording import from_data
from resources import resource

SAMPLES = "Samples"
"""The context of what the bundled samples say of themselves."""
_CALLS = {"translate", "QT_TRANSLATE_NOOP"}
_PLACES = {"say": 0, "joined": 0, "plural": 1, "of": 2}
"""Which argument of the core's functions is the template, or the noun of one."""
_FORMS = {
    "say": ("{}",),
    "joined": ("{}",),
    "plural": ("{{count:,}} {}s",),
    "of": ("{{part:,}} of {{count:,}} {}s", "all {{count:,}} {}s", "both {}s", "the only {}"),
}
Text = tuple[str, str]
"""Context and source text."""


class UntranslatableError(ValueError):
    """A text that no tool can find: it is not written where it is translated."""


def texts() -> list[Text]:
    """Every text of the window, by context, in the order of the sources."""
    found: dict[Text, None] = {}
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        found.update(dict.fromkeys(_texts_of(path)))
    for path in sorted((root.parent / "core").rglob("*.py")):
        found.update(dict.fromkeys((CORE, template) for template in _templates_of(path)))
    static = json.loads(resource("architectures", "static_by_hand.json").read_text("utf-8"))
    found.update(dict.fromkeys((CORE, from_data(entry["why"]).template) for entry in static["architectures"].values()))
    for sample in json.loads(resource("samples", "samples.json").read_text("utf-8")):
        found.update(dict.fromkeys((SAMPLES, sample[part]) for part in ("title", "story")))
    return sorted(found, key=lambda text: text[0])


def _texts_of(path: Path) -> Iterator[Text]:
    tree = ast.parse(path.read_text("utf-8"), filename=str(path))
    yield from _walk(tree, "", path)


def _walk(node: ast.AST, inside: str, path: Path) -> Iterator[Text]:
    if isinstance(node, ast.ClassDef):
        inside = node.name
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if name == "tr":
            if not first or not isinstance(first[0], str):
                raise UntranslatableError(f"{path.name}:{node.lineno}: tr() of something that is no text")
            yield inside, first[0]
        elif name in _CALLS and len(first) == 2 and all(isinstance(part, str) for part in first):
            yield str(first[0]), str(first[1])
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, inside, path)


def _templates_of(path: Path) -> Iterator[str]:
    """The templates of the sentences that a module of the core says."""
    tree = ast.parse(path.read_text("utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _PLACES:
            continue
        place = _PLACES[node.func.id]
        if len(node.args) <= place or (path.name == "wording.py" and place):
            continue
        for literal in _literals(node.args[place]):
            if not isinstance(literal, str):
                raise UntranslatableError(f"{path.name}:{node.lineno}: {node.func.id}() of something that is no text")
            yield from (form.format(literal) for form in _FORMS[node.func.id])


def _literals(node: ast.expr) -> Iterator[object]:
    """A literal, or both ends of a choice between two."""
    if isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)
    else:
        yield node.value if isinstance(node, ast.Constant) else None


def read(path: Path) -> dict[Text, str]:
    """The translations of a .ts file; "" where one is missing."""
    found = {}
    for context in ET.parse(path).getroot().iter("context"):  # noqa: S314 - a file of this repository
        name = context.findtext("name") or ""
        for message in context.iter("message"):
            translation = message.find("translation")
            done = translation is not None and translation.get("type") is None
            found[name, message.findtext("source") or ""] = (
                (translation.text or "") if done and translation is not None else ""
            )
    return found


def write(path: Path, language: str, translations: dict[Text, str]) -> None:
    """Write a .ts file of all present texts; those that are gone are left out."""
    root = ET.Element("TS", version="2.1", language=language, sourcelanguage="en")
    context, current = None, None
    for name, source in texts():
        if context is None or name != current:
            context, current = ET.SubElement(root, "context"), name
            ET.SubElement(context, "name").text = name
        message = ET.SubElement(context, "message")
        ET.SubElement(message, "source").text = source
        translation = ET.SubElement(message, "translation")
        known = translations.get((name, source), "")
        if known:
            translation.text = known
        else:
            translation.set("type", "unfinished")
    ET.indent(root, "  ")
    body = ET.tostring(root, encoding="unicode")
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n{body}\n', "utf-8")


def compile_catalogue(path: Path) -> None:
    """Make the .qm file beside a .ts file with Qt's lrelease, which comes with PySide6."""
    import PySide6

    tool = Path(PySide6.__file__).parent / "lrelease"
    subprocess.run(  # noqa: S603 - Qt's own tool on a file of this repository
        [str(tool), "-silent", str(path), "-qm", str(path.with_suffix(".qm"))], check=True
    )


def main() -> int:
    """Bring all catalogues up to date; returns 1 when a text has no translation, and names it."""
    missing = 0
    for path in sorted(resource("translations").glob("*.ts")):
        known = read(path)
        write(path, path.stem.removeprefix("kvscope_"), known)
        compile_catalogue(path)
        for name, source in texts():
            if not known.get((name, source)):
                missing += 1
                sys.stdout.write(f"{path.name}: {name}: {source!r} is not translated\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
