"""Finds how many attention heads and layers a config has that does not say, and what model it is of:
``PYTHON survey_config_classes.py``, with the Python of a vLLM.

Every config class that it knows, Transformers' and its own, is made without arguments and with another number of heads.
Writes ``config_classes.json`` beside this script (schema ``kvscope.config-classes/1``): ``heads``: model type -> the
number of heads, and of key/value heads (null: as many as heads), under the type of a whole model where its class fills
others into the language model's part; ``layers``: model type -> the number of layers, or the kind of each where the
number alone would not tell which of them attend; ``text``: model type -> that of the language model in it; ``models``:
model type -> the architecture that vLLM takes where config.json names none.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core.architectures.layers import LAYERS, layer_kinds

HEADS = ("num_attention_heads", "n_head", "decoder_attention_heads", "num_heads")
KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
"""The names under which vLLM 0.33.0 looks for them, in this order (``transformers_utils/config.py``)."""


def main() -> None:
    """Write the file."""
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", VLLM_CONFIGURE_LOGGING="0")
    logging.disable(logging.CRITICAL)
    heads: dict[str, list[int | None]] = {}
    layers: dict[str, int | list[str]] = {}
    text: dict[str, str] = {}
    classes = dict(_classes())
    for name, cls in classes.items():
        with suppress(Exception):  # one that wants arguments has no defaults
            made = cls()
            inner = made.get_text_config()
            if inner is not made:
                text[name] = inner.model_type
            if inner is made or inner.model_type not in classes:
                _record(heads, inner.model_type if inner is not made else name, inner)
                _record_layers(layers, inner.model_type if inner is not made else name, inner)
    for name, inner_type in text.items():
        with suppress(Exception):
            _record_outer(heads, layers, name, classes[name], inner_type)
    mapped = importlib.import_module("transformers.models.auto.modeling_auto").MODEL_MAPPING_NAMES
    models = {name: model for name, model in mapped.items() if isinstance(model, str)}
    sections: dict[str, dict[str, Any]] = {"heads": heads, "layers": layers, "text": text, "models": models}
    rows = (
        f"{json.dumps(section)}: {{\n"
        + ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(entries.items()))
        + "\n}"
        for section, entries in sections.items()
    )
    versions = " and ".join(f"{name} {importlib.import_module(name).__version__}" for name in ("transformers", "vllm"))
    path = Path(__file__).with_name("config_classes.json")
    head = f'"schema": "kvscope.config-classes/1", "source": "config classes of {versions}"'
    path.write_text(f"{{{head},\n" + ",\n".join(rows) + "}\n")


def _record(heads: dict[str, list[int | None]], name: str, made: Any) -> None:
    if (count := _number(made, HEADS)) is not None:
        heads[name] = [count, _of_its_own(type(made), made, count)]


def _record_outer(
    heads: dict[str, list[int | None]], layers: dict[str, int | list[str]], name: str, cls: Any, inner_type: str
) -> None:
    """What the class of a whole model fills into the language model's part, where that part's own class says else."""
    inner = cls(text_config={"model_type": inner_type}).get_text_config()
    count, own = _number(inner, HEADS), heads.get(inner_type)
    if count is None or own is None:
        return
    field = next(each for each in HEADS if _number(inner, (each,)) == count)
    doubled = cls(text_config={"model_type": inner_type, field: 2 * count}).get_text_config()
    if _number(doubled, HEADS) != 2 * count:
        return  # its part has another place
    follows = (_number(doubled, KV_HEADS) or 2 * count) == 2 * count
    found = [count, None if follows else _number(inner, KV_HEADS)]
    if found != own:
        heads[name] = found
    depth, own_depth = _number(inner, LAYERS), layers.get(inner_type)
    if depth is not None and isinstance(own_depth, int) and depth != own_depth:
        layers[name] = depth


def _record_layers(layers: dict[str, int | list[str]], name: str, made: Any) -> None:
    count = _number(made, LAYERS)
    if count is None:
        return
    listed = next(
        (
            [str(kind) for kind in found]
            for field in ("layer_types", "layers_block_type")
            if isinstance(found := getattr(made, field, None), list | tuple) and len(found) == count
        ),
        [],
    )
    told = layer_kinds({"model_type": name, "num_hidden_layers": count})
    layers[name] = listed if listed and _attending(listed) != _attending(told) else count


def _attending(kinds: Sequence[str]) -> list[bool]:
    return ["attention" in kind and kind not in ("linear_attention", "no_attention") for kind in kinds]


def _classes() -> Iterator[tuple[str, Any]]:
    known = dict.fromkeys(importlib.import_module("transformers").CONFIG_MAPPING.keys())
    own = importlib.import_module("vllm.transformers_utils.config")._CONFIG_REGISTRY  # noqa: SLF001
    for name in sorted({*known, *own}):
        with suppress(Exception):
            yield name, own[name] if name in own else importlib.import_module("transformers").CONFIG_MAPPING[name]


def _number(config: Any, names: tuple[str, ...]) -> int | None:
    for name in names:
        try:
            value = getattr(config, name, None)
        except Exception:  # noqa: BLE001  (a number that differs from layer to layer: the whole model's, where it is kept)
            value = vars(config).get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _of_its_own(cls: Any, made: Any, count: int) -> int | None:
    """The number of key/value heads, None where it follows the number of heads or there is none."""
    kv_heads = _number(made, KV_HEADS)
    field = next(name for name in HEADS if _number(made, (name,)) == count)
    for other in (count * 2, count * 4, count // 2 or 1):
        with suppress(Exception):  # sizes must often go into each other
            changed = cls(**{field: other})
            if _number(changed, HEADS) == other:
                return None if _number(changed, KV_HEADS) == other else kv_heads
    return kv_heads


if __name__ == "__main__":
    main()
