"""The vLLM that was probed last, kept in the user's data folder for later runs."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from core.engines.probed import LIMIT, NotUnderstoodError, ProbedEngine, parse_json, read_probe
from core.errors import KVScopeError
from core.wording import say

SCHEMA = "kvscope.installed/1"


def data_folder() -> Path:
    """Where this program keeps what it learned: KVSCOPE_DATA, or kvscope in the user's data folder."""
    if own := os.environ.get("KVSCOPE_DATA"):
        return Path(own)
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "share") / "kvscope"


def saved_file() -> Path:
    """The file of the vLLM that was probed last."""
    return data_folder() / "engines" / "installed.json"


def save(engine: ProbedEngine) -> Path:
    """Keep that engine for later runs, in place of the one before. Raises KVScopeError when it cannot be written."""
    path = saved_file()
    text = json.dumps(
        {"schema": SCHEMA, "python": engine.python, "date": engine.date, "probe": engine.document},
        separators=(",", ":"),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".installed-", delete=False
        ) as file:
            try:
                file.write(text + "\n")
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise KVScopeError(
            say("cannot be written: {error}", error=error.strerror),
            path=path,
            remedy=say("Name a folder that can be written to with KVSCOPE_DATA"),
        ) from error
    return path


def load_installed() -> ProbedEngine | None:
    """The vLLM that was probed last; None when none was. Raises KVScopeError when its file cannot be read."""
    path = saved_file()
    again = say("Run `kvscope probe --python PATH` again")
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT + 65_537)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KVScopeError(say("cannot be read: {error}", error=error.strerror), path=path, remedy=again) from error
    try:
        return _read(raw)
    except NotUnderstoodError as error:
        raise KVScopeError(say("is no saved engine: {error}", error=error.args[0]), path=path, remedy=again) from error


def _read(raw: bytes) -> ProbedEngine:
    if len(raw) > LIMIT + 65_536:
        raise NotUnderstoodError(say("it is too large"))
    saved = parse_json(raw)
    if not isinstance(saved, dict) or saved.get("schema") != SCHEMA:
        raise NotUnderstoodError(say("its schema is not {schema}", schema=SCHEMA))
    python, date, document = saved.get("python"), saved.get("date"), saved.get("probe")
    if not isinstance(python, str) or not isinstance(date, str) or not isinstance(document, dict):
        raise NotUnderstoodError(say("python, date and probe are not all there"))
    return ProbedEngine(reading=read_probe(document), python=python, date=date, document=document)
