"""Prints what a vLLM knows of renaming KV-cache scales, as one JSON document; nothing of KVScope is needed.

Run it with the Python of the environment vLLM is installed in:

    python probe_vllm.py [--seconds 120] [--modules 2000] [--skip MODULE ...] [--no-names]

No model is built, no checkpoint is read and no GPU is used: the quantization methods and the modules of the model
registry are imported, their mappers are read, and the sources of their ``load_weights`` are looked at. A module that
cannot be imported costs its own architectures; ``--skip`` leaves out one that brings the process down. After
``--seconds`` what is known by then is printed. ``kvscope-probe N/M MODULE`` on stderr says where the reading is.
The ``vllm-<version>.json`` beside this file were written by it, with ``--no-names``, from the real releases.

Schema ``kvscope.probe/1``, all of it or ``failed`` and ``message`` alone:

``vllm``, ``python``, ``platform``; ``complete``: every module was tried within the time.
``names``: names that every mapper was asked about.
``mappers``: ``rules`` (kind -> rows of pattern, replacement and, for stacked rules, shard), ``unread`` (fields of a
    kind not known here), ``names`` (what the engine's own code makes of ``names``, null for a dropped one),
    ``with_fp8`` (the same after ``| get_cache_scale_mapper()`` of fp8; null where that has none).
``methods``: ``config_class``, ``cache_scale_mapper`` and ``checkpoint_mapper`` (positions in ``mappers``; null: none),
    ``ignored_suffixes`` (null: the version has none), ``asks_cache_scale``; or ``error``.
``classes``: "file.Class" of every model class with a loader: ``passes`` (what it hands to AutoWeightsLoader as mapper:
    "class": its class's ``hf_to_vllm_mapper``, "none": nothing, "own": it does not call AutoWeightsLoader, "other"),
    ``mapper`` (``hf_to_vllm_mapper`` where that is an attribute of the class), ``written`` (where ``load_weights``
    stands) and ``source`` (a digest of its text, comments aside).
``architectures``: name -> ``class``, or ``error``.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import inspect
import json
import os
import platform
import re
import sys
import textwrap
import threading
import time
from typing import Any

SCHEMA = "kvscope.probe/1"
KINDS = ("renaming", "regex", "substr", "stacked", "prefix", "suffix")
NAMES = (
    "model.layers.0.self_attn.kv_scale",
    "model.layers.0.self_attn.k_scale",
    "model.layers.0.self_attn.k_proj.k_scale",
    "model.layers.0.self_attn.v_proj.v_scale",
    "model.layers.0.self_attn.k_proj.output_scale",
    "model.layers.0.self_attn.q_proj.output_scale",
    "model.layers.0.self_attn.prob_output_scale",
    "model.layers.0.self_attn.qkv_proj.k_scale",
    "model.layers.0.self_attn.qkqkv_proj.v_scale",
    "model.layers.0.self_attn.q.scale",
    "model.layers.0.self_attn.k_cache.scale",
    "model.layers.0.self_attn.attn.k_scale",
    "model.layers.0.self_attn.k_zero_point",
    "model.layers.0.mixer.k_proj.k_scale",
    "model.layers.0.attention.wk.k_fake_quantizer.qscale_act",
    "model.layers.0.mlp.down_proj.g_idx",
    "model.language_model.layers.0.self_attn.k_proj.k_scale",
    "language_model.model.layers.0.self_attn.v_proj.output_scale",
    "transformer.h.0.attn.k_scale",
    "backbone.layers.0.mixer.k_proj.k_scale",
    "decoder.layers.0.self_attn.k_proj.k_scale",
)
HANDED = "self.hf_to_vllm_mapper"
_CHANGED_BY_INSTANCES = re.compile(r"self\.hf_to_vllm_mapper\s*(?:\|=|(?::[^=\n]+)?=[^=])")


def short(error: BaseException) -> str:
    """An error as one line, without the files that Python names in brackets."""
    lines = re.sub(r"\s*\((?:/|[A-Za-z]:)[^()]*\)", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}"[:500] if lines else type(error).__name__


def shard_of(shard: Any) -> Any:
    """A shard, or several, as JSON has them."""
    return list(shard) if isinstance(shard, (list, tuple)) else shard


def flagged(pattern: Any) -> str:
    """A compiled pattern as text, its flags written into it."""
    flags = "".join(
        letter
        for letter, flag in (("i", re.IGNORECASE), ("m", re.MULTILINE), ("s", re.DOTALL), ("x", re.VERBOSE))
        if pattern.flags & flag
    )
    return f"(?{flags}){pattern.pattern}" if flags else str(pattern.pattern)


def rules_of(mapper: Any) -> dict[str, list[list[Any]]]:
    """The rules of a WeightsMapper, in the order of their kinds."""
    rules: dict[str, list[list[Any]]] = {}
    for kind in KINDS:
        held = getattr(mapper, f"orig_to_new_{kind}", None)
        if not held:
            continue
        if kind == "renaming":
            rows = [[old, new] for rule in held for old, new in zip(rule.source_patterns, rule.target_patterns)]  # noqa: B905
        elif kind == "stacked":
            rows = [[old, new, shard_of(shard)] for old, (new, shard) in held.items()]
        elif kind == "regex":
            rows = [[flagged(pattern), new] for pattern, new in held.items()]
        else:
            rows = [[old, new] for old, new in held.items()]
        rules[kind] = rows
    return rules


class Mappers:
    """Every distinct mapper, once."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.found: list[dict[str, Any]] = []
        self._places: dict[str, int] = {}
        self.fp8: Any = None

    def place(self, mapper: Any) -> int:
        """The position of that mapper."""
        rules = rules_of(mapper)
        known = {f"orig_to_new_{kind}" for kind in KINDS}
        unread = sorted(name for name, held in vars(mapper).items() if name not in known and held)
        key = json.dumps([rules, unread])
        if key not in self._places:
            self._places[key] = len(self.found)
            self.found.append(
                {
                    "rules": rules,
                    "unread": unread,
                    "names": renamed(mapper, self.names),
                    "with_fp8": renamed(mapper | self.fp8, self.names) if self.fp8 is not None and self.names else None,
                }
            )
        return self._places[key]


def renamed(mapper: Any, names: tuple[str, ...]) -> list[str | None]:
    """What vLLM's own code makes of these names."""
    rename = getattr(mapper, "map_name", None) or mapper._map_name  # noqa: SLF001  (its name in older versions)
    return [rename(name) for name in names]


# ------------------------------------------------------------------------------------------------ quantization methods
def asked(config: Any, name: str) -> Any:
    """What a config class's method without arguments returns; None where the class has no such method."""
    held = inspect.getattr_static(config, name, None)
    if held is None:
        return None
    if isinstance(held, (staticmethod, classmethod)):
        return getattr(config, name)()
    return held(config.__new__(config))


def read_methods(document: dict[str, Any], mappers: Mappers) -> None:
    """Every quantization method, those of plugins too."""
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS, get_quantization_config

    try:
        mappers.fp8 = asked(get_quantization_config("fp8"), "get_cache_scale_mapper")
    except Exception as error:  # noqa: BLE001  (fp8 is then read without rules, and its own entry says why)
        print(f"fp8: {short(error)}", file=sys.stderr)
    for method in QUANTIZATION_METHODS:
        try:
            config = get_quantization_config(method)
            cache_scales = asked(config, "get_cache_scale_mapper")
            checkpoint = asked(config, "get_checkpoint_weight_mapper")
            suffixes = getattr(config, "_ignore_unexpected_suffixes", None)
            document["methods"][method] = {
                "config_class": name_of(config),
                "cache_scale_mapper": None if cache_scales is None else mappers.place(cache_scales),
                "checkpoint_mapper": None if checkpoint is None else mappers.place(checkpoint),
                "ignored_suffixes": None if suffixes is None else list(suffixes),
                "asks_cache_scale": asks_cache_scale(config),
            }
        except Exception as error:  # noqa: BLE001  (one method that cannot be read costs that method)
            document["methods"][method] = {"error": short(error)}


def asks_cache_scale(config: Any) -> bool:
    """Whether the class has a ``get_cache_scale`` of its own, not the empty one of the base class."""
    from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

    own = inspect.getattr_static(config, "get_cache_scale", None)
    return own is not None and own is not inspect.getattr_static(QuantizationConfig, "get_cache_scale", None)


# -------------------------------------------------------------------------------------------------------------- models
def name_of(cls: Any) -> str:
    """File and class, as KVScope's surveys name them: "llama.LlamaForCausalLM"."""
    file = re.sub(r"^vllm\.(model_executor\.(models|layers)|models)\.", "", cls.__module__)
    return f"{file}.{cls.__qualname__}"


def text_of(function: Any) -> str:
    """The source without comment lines, blank lines and indentation; "" where there is none."""
    try:
        lines = inspect.getsource(function).splitlines()
    except (OSError, TypeError):
        return ""
    return "\n".join(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))


def writers(cls: Any) -> list[Any]:
    """The classes that define ``load_weights``, in the order in which Python looks."""
    return [base for base in cls.__mro__ if "load_weights" in vars(base)]


def handed_over(function: Any) -> set[str]:
    """What a ``load_weights`` hands to its AutoWeightsLoader: "class", "none", "super" or "other"; empty for none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return {"other"}
    on_self = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_loader_of_self(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr != "load_weights":
            continue
        receiver = node.func.value
        given = [ast.unparse(word.value) for word in node.keywords if word.arg in ("mapper", None)]
        if ast.unparse(receiver) == "super()":
            found.add("super")
        elif len(node.args) > 1 or not (
            is_loader_of_self(receiver) or (isinstance(receiver, ast.Name) and receiver.id in on_self)
        ):
            found.add("other")
        else:
            found.add("none" if not given else "class" if given == [HANDED] else "other")
    return found


def is_loader_of_self(node: ast.AST) -> bool:
    """``AutoWeightsLoader(self, ...)``."""
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("AutoWeightsLoader")
        and bool(node.args)
        and ast.unparse(node.args[0]) == "self"
    )


def passes(cls: Any) -> str:
    """What the class's loader, or the one it inherits, hands to AutoWeightsLoader."""
    found: set[str] = set()
    for writer in writers(cls):
        found |= handed_over(vars(writer)["load_weights"])
        if "super" not in found:
            break
        found.discard("super")
    if not found:
        return "own"
    (one, *more) = found
    return "other" if more else one


def changed_by_instances(cls: Any) -> bool:
    """Whether a module that the class comes from gives instances another mapper than the class's."""
    modules = {base.__module__ for base in cls.__mro__ if base.__module__.startswith("vllm.")}
    return any(_CHANGED_BY_INSTANCES.search(module_text(name)) for name in modules)


_texts: dict[str, str] = {}


def module_text(name: str) -> str:
    """The source of an imported module; "" where there is none."""
    if name not in _texts:
        try:
            _texts[name] = inspect.getsource(sys.modules[name])
        except (OSError, TypeError, KeyError):
            _texts[name] = ""
    return _texts[name]


def read_class(cls: Any, mappers: Mappers) -> dict[str, Any]:
    """How instances of that class load themselves."""
    written = writers(cls)
    mapper = inspect.getattr_static(cls, "hf_to_vllm_mapper", None)
    readable = hasattr(mapper, "orig_to_new_suffix")
    how = passes(cls) if written else "own"
    if how == "class" and (not readable or changed_by_instances(cls)):
        how = "other"
    text = text_of(vars(written[0])["load_weights"]) if written else ""
    return {
        "passes": how,
        "mapper": mappers.place(mapper) if readable else None,
        "written": name_of(written[0]) if written else "",
        "source": hashlib.sha256(text.encode()).hexdigest()[:16] if text else "",
    }


def read_models(document: dict[str, Any], mappers: Mappers, options: argparse.Namespace, deadline: float) -> None:
    """Every architecture of the registry, module by module, and the classes that their models are made of."""
    from vllm.model_executor.models.registry import ModelRegistry

    by_module: dict[str, dict[str, Any]] = {}
    for architecture, entry in ModelRegistry.models.items():
        module = getattr(entry, "module_name", None) or entry.model_cls.__module__
        by_module.setdefault(module, {})[architecture] = entry
    for number, (module, entries) in enumerate(by_module.items()):
        why = "left out, because its import ended the process" if module in options.skip else ""
        why = why or ("not read: too many modules" if number >= options.modules else "")
        if not why and time.monotonic() > deadline:
            why, document["complete"] = "not read: the time was over", False
        if not why:
            print(f"kvscope-probe {number}/{len(by_module)} {module}", file=sys.stderr, flush=True)
        for architecture, entry in entries.items():
            told = {"error": why} if why else read_architecture(entry, document, mappers)
            document["architectures"][architecture] = told
    read_other_classes(document, mappers)


def read_architecture(entry: Any, document: dict[str, Any], mappers: Mappers) -> dict[str, Any]:
    """One entry of the registry, whose module is imported only now."""
    try:
        lazy = hasattr(entry, "module_name")
        cls = getattr(importlib.import_module(entry.module_name), entry.class_name) if lazy else entry.model_cls
        name = name_of(cls)
        if name not in document["classes"]:
            document["classes"][name] = read_class(cls, mappers)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever a model's module raises, others can be read)
        return {"error": short(error)}
    return {"class": name}


def read_other_classes(document: dict[str, Any], mappers: Mappers) -> None:
    """The classes with loaders that models are made of."""
    from torch import nn

    prefixes = ("vllm.model_executor.models.", "vllm.models.")
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(prefixes):
            continue
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and cls.__module__ == name and issubclass(cls, nn.Module) and writers(cls):
                key = name_of(cls)
                if key not in document["classes"]:
                    document["classes"][key] = read_class(cls, mappers)


# ---------------------------------------------------------------------------------------------------------------- main
class Output:
    """The document's one way out: the first to print wins, and nothing else of this process reaches stdout."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._lock = threading.Lock()
        os.dup2(2, 1)

    def print(self, document: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(document, separators=(",", ":")) + "\n")
            self._file.flush()
            os._exit(0)  # an import may have started threads that would keep the process alive


def fill(document: dict[str, Any], mappers: Mappers, options: argparse.Namespace, deadline: float) -> None:
    """Raises ImportError and its kin when there is no vLLM that can be read."""
    import vllm

    document["vllm"] = str(vllm.__version__)
    from vllm.platforms import current_platform
    from vllm.plugins import load_general_plugins

    document["platform"] = type(current_platform).__name__
    try:
        load_general_plugins()  # as the engine does when it starts: backends from outside vLLM register themselves
    except Exception as error:  # noqa: BLE001  (vLLM is there all the same)
        print(f"plugins: {short(error)}", file=sys.stderr)
    read_methods(document, mappers)
    read_models(document, mappers, options, deadline)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--modules", type=int, default=2000)
    parser.add_argument("--skip", action="append", default=[])
    parser.add_argument("--no-names", action="store_true")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    output = Output()
    names = () if options.no_names else NAMES
    mappers = Mappers(names)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "vllm": "",
        "python": platform.python_version(),
        "platform": "",
        "complete": True,
        "names": list(names),
        "mappers": mappers.found,
        "methods": {},
        "classes": {},
        "architectures": {},
    }

    def too_late() -> None:
        """One import hangs: what is known by now is printed over its head."""
        if not document["methods"]:
            output.print(failure(document, "time", f"vLLM was not imported within {options.seconds:.0f} s"))
        output.print({**json.loads(json.dumps(document)), "complete": False})

    timer = threading.Timer(options.seconds * 1.1, too_late)
    timer.daemon = True
    timer.start()
    try:
        fill(document, mappers, options, deadline)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (what is wrong with that vLLM is the result)
        output.print(failure(document, "reading" if document["vllm"] else "import", short(error)))
    output.print(document)


def failure(document: dict[str, Any], failed: str, message: str) -> dict[str, Any]:
    """The document of a vLLM that cannot be read."""
    return {"schema": SCHEMA, "failed": failed, "vllm": document["vllm"], "message": message}


if __name__ == "__main__":
    main()
