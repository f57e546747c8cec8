"""Finds how many attention heads a config has that does not say: ``PYTHON survey_heads.py``, with the Python of a vLLM.

Every config class that it knows, Transformers' and its own, is made without arguments and with another number of heads.
Writes ``config_heads.json`` beside this script (schema ``kvscope.config-heads/1``): ``heads``: model type -> the number
of heads, and of key/value heads (null: as many as heads); ``text``: model type -> that of the language model in it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

HEADS = ("num_attention_heads", "n_head", "decoder_attention_heads", "num_heads")
KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
"""The names under which vLLM 0.33.0 looks for them, in this order (``transformers_utils/config.py``)."""


def main() -> None:
    """Write the file."""
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", VLLM_CONFIGURE_LOGGING="0")
    logging.disable(logging.CRITICAL)
    heads: dict[str, list[int | None]] = {}
    text: dict[str, str] = {}
    classes = dict(_classes())
    for name, cls in classes.items():
        with suppress(Exception):  # one that wants arguments has no defaults
            made = cls()
            inner = made.get_text_config()
            if inner is made:
                _record(heads, name, made)
            else:
                text[name] = inner.model_type
                if inner.model_type not in classes:
                    _record(heads, inner.model_type, inner)
    rows = {
        "heads": ",\n".join(f"{json.dumps(name)}: {json.dumps(counts)}" for name, counts in sorted(heads.items())),
        "text": ",\n".join(f"{json.dumps(name)}: {json.dumps(inner)}" for name, inner in sorted(text.items())),
    }
    versions = " and ".join(f"{name} {importlib.import_module(name).__version__}" for name in ("transformers", "vllm"))
    written = f'"heads": {{\n{rows["heads"]}\n}},\n"text": {{\n{rows["text"]}\n}}'
    path = Path(__file__).with_name("config_heads.json")
    path.write_text(f'{{"schema": "kvscope.config-heads/1", "source": "config classes of {versions}",\n{written}}}\n')


def _record(heads: dict[str, list[int | None]], name: str, made: Any) -> None:
    if (count := _number(made, HEADS)) is not None:
        heads[name] = [count, _of_its_own(type(made), made, count)]


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
