"""Finds the lines on which an engine's rules for scales stand: ``python find_lines.py ENGINE PACKAGE``.

ENGINE is the profile's id (``vllm-0.33.0``), PACKAGE the folder of its unpacked Python package (``.../vllm``,
``.../sglang``). The sources are parsed, never run. Writes ``<ENGINE>.json`` beside this script (schema
``kvscope.lines/1``): ``files``: file -> what is defined there ("Gemma3ForCausalLM.load_weights") -> its line under "",
and under each text that looks like a part of a tensor's name the first line that holds it.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_FUNCTIONS = (
    "get_cache_scale",
    "get_cache_scale_mapper",
    "get_checkpoint_weight_mapper",
    "load_weights",
    "maybe_remap_kv_scale_name",
    "do_load_weights",
    "process_weights_after_loading",
)
_ATTRIBUTES = ("hf_to_vllm_mapper", "REMOVE_UNUSED_ROTARY_EMBEDS_MAPPER")
_NAME = re.compile(r"_proj|qkv|scale|attn|zero_point|rotary|g_idx|backbone|^model\.?$|language_model")
_ROOTS = {"vllm": "model_executor", "sglang": "srt"}
_PLACES = ("models", "model_loader", "layers/quantization", "layers/attention", "layers/radix_attention.py")


def main() -> int:
    """Write the lines of one engine; returns the exit status."""
    engine, package = sys.argv[1], Path(sys.argv[2])
    root = package / _ROOTS[engine.partition("-")[0]]
    files = {}
    for path in sorted(path for place in _PLACES for path in _sources(root / place)):
        if found := dict(_definitions(ast.parse(path.read_text(encoding="utf-8")))):
            files[path.relative_to(root).as_posix()] = found
    out = Path(__file__).with_name(f"{engine}.json")
    document = {"schema": "kvscope.lines/1", "engine": engine, "files": files}
    out.write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(f"{out.name}: {len(files)} files, {sum(map(len, files.values()))} definitions, {out.stat().st_size:,} bytes")
    return 0


def _sources(place: Path) -> Iterator[Path]:
    return iter([place]) if place.suffix == ".py" and place.is_file() else place.rglob("*.py")


def _definitions(tree: ast.Module) -> Iterator[tuple[str, dict[str, int]]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in _FUNCTIONS:
            yield node.name, _texts(node)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name in _FUNCTIONS:
                    yield f"{node.name}.{inner.name}", _texts(inner)
                for name in _assigned(inner):
                    if name in _ATTRIBUTES:
                        yield f"{node.name}.{name}", _texts(inner)


def _assigned(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def _texts(node: ast.stmt) -> dict[str, int]:
    """The definition's line, and the first line of each text in it that may be part of a tensor's name."""
    found = {"": node.lineno}
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Constant) or not isinstance(text := inner.value, str):
            continue
        if len(text) <= 80 and " " not in text and _NAME.search(text):
            found[text] = min(inner.lineno, found.get(text, inner.lineno))
    return found


if __name__ == "__main__":
    sys.exit(main())
