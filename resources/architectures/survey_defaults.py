"""Writes config_defaults.json: how many heads a model has whose config.json does not say so.

Run it with the Python of an environment in which the engine's config classes can be made (vLLM and transformers):

    python survey_defaults.py OUT

Every config class that transformers or vLLM registers for a model type is made without arguments, and once more with
twice the heads: where the KV heads then change along, they follow the heads. A class of several models is written with
the model type of its language model, whose own entry holds the numbers.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FIELDS = {"heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}


def config_classes() -> Iterator[tuple[str, type]]:
    """Model type and class; vLLM's own classes replace those of transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    for name in sorted({*CONFIG_MAPPING, *_CONFIG_REGISTRY}):
        try:
            yield name, _CONFIG_REGISTRY[name] if name in _CONFIG_REGISTRY else CONFIG_MAPPING[name]
        except Exception as error:  # noqa: BLE001  (one class that is not there costs that class)
            print(f"{name}: {error!r}"[:200], file=sys.stderr)


def numbers(config: Any) -> dict[str, int]:
    """What a config object says of itself."""
    found = {}
    for short, name in FIELDS.items():
        try:
            value = getattr(config, name, None)
        except Exception as error:  # noqa: BLE001  (numbers that differ from layer to layer raise)
            print(f"{type(config).__name__}: {error!r}"[:200], file=sys.stderr)
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found[short] = value
    return found


def described(name: str, kind: type) -> dict[str, int | str]:
    """The entry of one model type; empty where its class cannot be made without arguments, or has no such numbers."""
    try:
        config = kind()
        text = config.get_text_config()
    except Exception as error:  # noqa: BLE001  (whatever a class raises, others can be made)
        print(f"{name}: {error!r}"[:200], file=sys.stderr)
        return {}
    inner = getattr(text, "model_type", "")
    if text is not config and inner and inner != name:
        return {"text": inner}
    found: dict[str, int | str] = dict(numbers(text))
    heads = found.get("heads")
    if isinstance(heads, int) and found.get("kv_heads") == heads and text is config:
        try:
            doubled = kind(**{FIELDS["heads"]: 2 * heads})
            if numbers(doubled).get("kv_heads") == 2 * heads:
                found["kv_heads"] = "heads"
        except Exception as error:  # noqa: BLE001  (it then does not follow)
            print(f"{name}, twice the heads: {error!r}"[:200], file=sys.stderr)
    return found


def main() -> None:
    """Survey all and write the file, one model type a line."""
    rows = {name: entry for name, kind in config_classes() if (entry := described(name, kind))}
    versions = {name: importlib.metadata.version(name) for name in ("vllm", "transformers")}
    lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'))}" for name, row in rows.items())
    head = json.dumps({"schema": "kvscope.config-defaults/1", **versions}, separators=(",", ":"))[:-1]
    Path(sys.argv[1]).write_text(f'{head},\n"defaults":{{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
