"""Writes loops-vllm-<version>.json: what vLLM's hand-written ``load_weights`` loops do with a tensor's name.

    python survey_loops.py VLLM MODULES.json OUT

VLLM is the folder of an unpacked vLLM package (nothing is imported), MODULES the survey of the same version, which says
which classes load themselves. Every loop is reduced to what decides the fate of a KV-cache scale: which names it skips,
how it renames them, where it asks for scale names, which parameters it hands the tensor to, with how many arguments.
A loop that is written in a way this program does not know is reported and left out, unless ``loops_by_hand.json``
describes it, which has the same form, goes first, and names the versions it holds for.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from resources.architectures.loop_conditions import Unknown
from resources.architectures.loop_reader import Loop, Steps
from resources.architectures.loop_words import folded, shorter

BY_HAND = Path(__file__).with_name("loops_by_hand.json")
FOLDERS = ("model_executor/models", "models", "model_executor/layers")


def loop_of(vllm: Path, of: str) -> Steps | None:
    """The steps of a class's load_weights, or of the method it hands its tensors to; None where there is no such
    class. Raises Unknown.
    """
    methods = _methods(vllm, of)
    if "load_weights" not in methods:
        return None
    function = methods["load_weights"]
    match function.body[-1]:
        case ast.Return(value=ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=other))) if other in methods:
            function = methods[other]
    return shorter(folded(Loop(function).steps))


def _methods(vllm: Path, of: str) -> dict[str, ast.FunctionDef]:
    module, _, cls = of.rpartition(".")
    files = (vllm / folder / (module.replace(".", "/") + ".py") for folder in FOLDERS)
    for path in files:
        for node in ast.parse(path.read_text()).body if path.exists() else ():
            if isinstance(node, ast.ClassDef) and node.name == cls:
                return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    return {}


def by_hand(part: str, version: str) -> dict[str, Any]:
    """What is described by hand for that version: ``loops`` or ``before``."""
    written: dict[str, list[dict[str, Any]]] = json.loads(BY_HAND.read_text())[part]
    return {of: entry for of, entries in written.items() for entry in entries if version in entry["versions"]}


def main() -> None:
    """Reads every loop that the survey found."""
    vllm, modules, out = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    engine = modules["engine"].partition("+")[0]
    version = engine.removeprefix("vllm-")
    written = by_hand("loops", version)
    loaders = [entry["loader"] for entry in modules["modules"].values() if "loader" in entry]
    loops: dict[str, Steps] = {}
    for of in sorted({loader["of"] for loader in loaders if loader["kind"] == "own"}):
        entry = written.get(of, {})
        try:
            steps = entry["steps"] if "steps" in entry else loop_of(vllm, entry.get("as", of))
        except Unknown as error:
            print(f"not read: {of}: {error}", file=sys.stderr)
        else:
            if steps is not None:
                loops[of] = steps
    before = {of: entry["steps"] for of, entry in by_hand("before", version).items()}
    rows = ",\n".join(f"{json.dumps(of)}:{json.dumps(steps, separators=(',', ':'))}" for of, steps in loops.items())
    head = f'"schema":"kvscope.loops/1",\n"engine":{json.dumps(engine)},\n"before":{json.dumps(before)},\n"loops":'
    out.write_text("{" + head + "{\n" + rows + "\n}}\n")
    print(f"{len(loops)} loops", file=sys.stderr)


if __name__ == "__main__":
    main()
