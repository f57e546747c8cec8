"""A process that forks exports to be killed: ``python -m tests.core.export.crashing SOURCE[=NAMES] ...``.

Reads a JSON line for each export: the number of the source, ``out``, ``resume``, and ``seconds`` after which it is
killed or the ``call`` at which it kills itself (before it, or ``later``); ``in_place`` changes ``out`` itself. Answers
with the status it ended with (-9 when it was killed), its seconds and, where it ended by itself, the number of calls.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from core.errors import KVScopeError
from core.export import ExportPlan, WriteOptions, export_in_place, write_export
from tests.core.export.exporting import plan_of
from tests.core.export.faults import Faulty


def _export(plan: ExportPlan, order: dict[str, Any], pipe: int) -> int:
    system = Faulty(at=order.get("call", -1), kind="kill", after=order.get("later", False))
    try:
        if order.get("in_place"):  # of a source that changes from run to run
            export_in_place(plan_of(Path(order["out"]), names=plan.names), system=system)
        else:
            write_export(plan, Path(order["out"]), options=WriteOptions(resume=order["resume"]), system=system)
    except KVScopeError as error:
        os.write(pipe, str(error).encode())
        return 2
    os.write(pipe, str(len(system.calls)).encode())
    return 0


def _run(plan: ExportPlan, order: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 3
        try:
            status = _export(plan, order, write)
        finally:
            os._exit(status)
    os.close(write)
    if order.get("seconds") is not None:
        time.sleep(order["seconds"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as told:
        words = told.read()
    return {"status": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started, "told": words}


def main() -> None:
    """Plan every source once, then serve."""
    sources = [argument.partition("=") for argument in sys.argv[1:]]
    plans = [plan_of(Path(path), names=names or None) for path, _, names in sources]
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_run(plans[order["source"]], order)), flush=True)


if __name__ == "__main__":
    main()
