"""Writes vllm-<version>.json: how vLLM's models are nested, surveyed from a real, importable vLLM.

Run it with the Python of an environment in which vLLM and its CPU test harness work (no GPU is needed):

    python survey_vllm.py HARNESS CONFIGS.json OUT [--only ARCHITECTURE ...]

HARNESS is a Python file that offers ``cpu_patches()``, ``build_vllm_config(path, kv_cache_dtype, dtype=...)``,
``stub_quant(quant_config)`` and ``init_dist()``. CONFIGS holds ``configs``: architecture -> the config.json of a tiny
model (``{"like": other}`` takes another entry's, with further keys replacing its own; ``architectures`` is filled in).
and ``left_out``: architecture -> why it is not to be surveyed. Every model is built for real in a worker process,
twenty to a process; a crash costs one architecture, and what could not be built is listed under ``not_surveyed`` with
the reason, unless the engine registers the same class under another name as well, which then stands for it. ``--only``
surveys those alone and keeps the rest of OUT. With timm installed, a few models with such vision towers can be built.

What could not be built is taken from ``static_by_hand.json``, if that was written for the same version: modules as the
sources nest them, in the same form with entries inside entries; ``as`` takes a surveyed architecture's module instead,
of which the other keys replace its own. An architecture is also called static where its modules were built, but one
that holds attention loads itself in a way that neither ``own_loaders.json`` nor the loops of that version describe.

Recorded are the module tree, every module's own loader with the mapper it passes, and the places where
``quant_config`` is visible. The schema of the result is described in ``core/architectures/__init__.py``.
Config classes that live in checkpoints' own (remote) code alone are stood in for by a plain one with the file's fields.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from resources.architectures.survey_tree import intern
from resources.architectures.survey_worker import work

HERE = Path(__file__).parent
GROUP = 20
"""Models built in one process: the import costs more than a model does."""


def read_configs(path: Path) -> dict[str, dict[str, Any]]:
    """Architecture -> config.json, with ``like`` resolved and ``architectures`` filled in."""
    written: dict[str, dict[str, Any]] = json.loads(path.read_text())["configs"]

    def whole(name: str) -> dict[str, Any]:
        entry = dict(written[name])
        base = whole(entry.pop("like")) if "like" in entry else {}
        return {**base, **entry}

    return {name: {**whole(name), "architectures": [name]} for name in written}


def survey(harness: str, configs: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """What the workers tell about each of these architectures."""
    waiting = list(names)
    while waiting:
        group = waiting[:GROUP]
        command = [sys.executable, __file__, harness, str(configs), "-", "--worker", "--only", *group]
        current = ""
        done: set[str] = set()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:  # noqa: S603  (this very file)
            for line in worker.stdout or ():
                told = json.loads(line)
                current = told.get("starts", current)
                if "starts" not in told:
                    done.add(told.get("name", ""))
                    yield told
        if current and current not in done:
            done.add(current)
            yield {"name": current, "failed": f"the process ended with status {worker.returncode}"}
        if not done:
            raise SystemExit(f"the worker ended with status {worker.returncode} before its first model")
        waiting = [name for name in waiting if name not in done]


def merge(modules: dict[str, dict[str, Any]], told: Mapping[str, Any]) -> str:
    """Adds one model's module classes to those of all; returns the key of its root."""
    keys: dict[str, str] = {}

    def add(key: str) -> str:
        if key not in keys:
            entry = dict(told["modules"][key])
            for field in ("children", "each"):
                if field in entry:
                    entry[field] = {name: add(child) for name, child in entry[field].items()}
            keys[key] = intern(modules, entry)
        return keys[key]

    return add(told["root"])


class Static:
    """Adds the architectures of ``static_by_hand.json`` to the surveyed ones."""

    def __init__(self, modules: dict[str, dict[str, Any]], architectures: dict[str, Any]) -> None:
        self.modules = modules
        self.architectures = architectures

    def add(self, engine: str) -> None:
        written = json.loads((HERE / "static_by_hand.json").read_text())
        for name, entry in written["architectures"].items() if written["engine"] == engine else ():
            if name not in self.architectures:
                self.architectures[name] = {"root": self.node(entry["tree"]), "surveyed": f"static: {entry['why']}"}

    def node(self, written: Mapping[str, Any]) -> str:
        entry = dict(written)
        for field in ("children", "each"):
            if field in entry:
                entry[field] = {name: self.node(child) for name, child in entry[field].items()}
        if "as" in entry:
            entry = {**self.modules[self.architectures[entry.pop("as")]["root"]], **entry}
        return intern(self.modules, entry)

    def doubt(self, engine: str) -> None:
        """Marks those whose attention is loaded by code that nothing here describes."""
        own = json.loads((HERE / "own_loaders.json").read_text())
        described = {**own["loaders"], **own["before"]}
        loops = HERE / f"loops-{engine}.json"
        if loops.is_file():
            read = json.loads(loops.read_text())
            described |= {**read["loops"], **read["before"]}
        for entry in self.architectures.values():
            unread = self.unread(entry["root"], described)
            if unread and not entry["surveyed"].startswith("static"):
                entry["surveyed"] = f"static: {unread.rpartition('.')[2]}.load_weights was not followed"

    def unread(self, key: str, described: Mapping[str, Any]) -> str:
        """The first loader on the way to an attention layer that is not described."""
        entry = self.modules[key]
        if not self.attends(key):
            return ""
        loader = entry.get("loader", {})
        written = loader.get("of") or loader.get("before")
        if written and written not in described:
            return str(written)
        below = {**entry.get("children", {}), **entry.get("each", {})}
        return next((found for child in below.values() if (found := self.unread(child, described))), "")

    def attends(self, key: str) -> bool:
        entry = self.modules[key]
        below = {**entry.get("children", {}), **entry.get("each", {})}
        return "attention" in entry or any(self.attends(child) for child in below.values())


def compact(result: Mapping[str, Any]) -> str:
    """JSON with one line for each module class and each architecture."""
    lines = []
    for name, value in result.items():
        if isinstance(value, dict):
            rows = [f"{json.dumps(key)}:{json.dumps(row, separators=(',', ':'))}" for key, row in value.items()]
            lines.append(f"{json.dumps(name)}:{{\n" + ",\n".join(rows) + "\n}")
        else:
            lines.append(f"{json.dumps(name)}:{json.dumps(value)}")
    return "{" + ",\n".join(lines) + "}\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("harness")
    parser.add_argument("configs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    configs = read_configs(given.configs)
    if given.worker:
        work(given.harness, configs, given.only)
        return
    before = json.loads(given.out.read_text()) if given.only and given.out.exists() else {}
    names = sorted(given.only or configs, key=lambda name: "gpu" in configs[name])  # these spoil their process
    left_out: dict[str, str] = json.loads(given.configs.read_text()).get("left_out", {})
    registered: dict[str, list[str]] = {}
    language_models: dict[str, str] = before.get("language_models", {})
    modules: dict[str, dict[str, Any]] = {}
    architectures: dict[str, Any] = {}
    failed = {name: why for name, why in before.get("not_surveyed", {}).items() if name not in names}
    version = ""
    for name, known in before.get("architectures", {}).items():
        if name not in names:
            architectures[name] = {**known, "root": merge(modules, {**before, "root": known["root"]})}
    for told in survey(given.harness, given.configs, names):
        version = told.get("version", version)
        registered |= told.get("registered", {})
        language_models |= told.get("language_models", {})
        if "root" in told:
            architectures[told["name"]] = {"root": merge(modules, told), "surveyed": told["surveyed"]}
        elif "failed" in told:
            failed[told["name"]] = told["failed"]
            print(f"not surveyed: {told['name']}: {told['failed']}", file=sys.stderr)
    for name, cls in registered.items():
        if name in architectures:
            continue
        twin = next((other for other in architectures if registered.get(other) == cls), None)
        if twin is None or name in left_out or cls[0] == "transformers":  # whose models are transformers' own
            failed[name] = left_out.get(name) or failed.get(name) or "no small model of it was made"
        else:
            architectures[name] = {"root": architectures[twin]["root"], "surveyed": f"alias of {twin}"}
            failed.pop(name, None)
    engine = f"vllm-{version.partition('+')[0]}"
    static = Static(modules, architectures)
    static.add(engine)
    static.doubt(engine)
    failed = {name: why for name, why in failed.items() if name not in architectures}
    result = {
        "schema": "kvscope.modules/2",
        "engine": engine,
        "architectures": dict(sorted(architectures.items())),
        "language_models": dict(sorted(language_models.items())),
        "not_surveyed": dict(sorted(failed.items())),
        "modules": modules,
    }
    given.out.write_text(compact(result))
    print(f"{len(architectures)} architectures, {len(modules)} module classes", file=sys.stderr)


if __name__ == "__main__":
    main()
