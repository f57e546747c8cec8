"""Every architecture that the real vLLM 0.33.0 built, against the surveyed module trees: where its attention layers
are, and what its loaders do with names of three spellings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from core.architectures import how_surveyed, known_architectures
from core.engines import DEFAULT_ENGINE, Fed, Wish, get_engine
from core.engines.outcome import Deliveries
from core.engines.vllm.engine import Vllm
from core.engines.vllm.predict import predict
from core.quantization import read_declaration
from tests.core.engines.random_cases import tiny_configs
from tests.core.quantization.folder import Files
from tests.golden_data import exception, golden

# The golden runs had tiny models of their own. Where these were other models than the name says, the run tells nothing.
MISSES = {
    "GPTBigCodeForCausalLM": "its golden config was a Llama's, which the Transformers backend builds as a Llama",
    "GPTNeoXForCausalLM": "its golden config was a Llama's, which the Transformers backend builds as a Llama",
    "Gemma3TextModel": "the golden run fed a list, which the pooling wrapper goes through twice: each write is doubled",
}
OTHER_PATHS = {
    "GPTBigCodeForCausalLM": MISSES["GPTBigCodeForCausalLM"],
    "GPTNeoXForCausalLM": MISSES["GPTNeoXForCausalLM"],
    "GraniteMoeHybridForCausalLM": "its golden config had Mamba layers only",
}
_RELATIVE = "names without the prefix are taken only where a weight among them tells; the run fed scales alone"
UNLIKE = {
    "Llama4ForConditionalGeneration": "a scale without any module's name is taken for a weight of the vision tower",
    "LlamaBidirectionalForSequenceClassification": _RELATIVE,
    "LlamaBidirectionalModel": _RELATIVE,
    "VoyageQwen3BidirectionalEmbedModel": _RELATIVE,
    "OpenPanguMTPModel": "its loader also takes numbers of layers from below other modules, which no checkpoint has",
}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
METHODS: dict[str, dict[str, Any]] = {
    **{
        name.removeprefix("llama-"): config["quantization_config"]
        for name, config in golden("vllm-0.33.0", "cases")["configs"].items()
        if name.startswith("llama-") and "quantization_config" in config
    },
    "modelopt": MODELOPT,
}
WISH = Wish(kv_cache_dtype="fp8", dtype="bfloat16")

_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers")
_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_configs", "hybrid_override_pattern")
_TOWERS = ("vision_config", "audio_config", "vit_config", "adapter_config", "encoder_config")

Record = Callable[[str, object], None]


def with_layers(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The same model with ``count`` decoder layers, its pattern of layers repeated."""

    def grown(name: str, value: Any) -> Any:
        if name in _COUNTS and isinstance(value, int):
            return count
        if name in _LISTS and isinstance(value, list | str):
            return (value * count)[:count]
        return with_layers(value, count) if isinstance(value, dict) and name not in _TOWERS else value

    return {name: grown(name, value) for name, value in config.items()}


def judged() -> list[str]:
    return [name for name in golden("vllm-0.33.0", "architectures") if name in tiny_configs() and _known(name)]


def _known(name: str) -> bool:
    return how_surveyed(name) != ""


def layers_of(tests: Mapping[str, Any]) -> int:
    """How many layers the golden run's model had at least."""
    numbers = (int(number) for name in tests for number in re.findall(r"(?<=\.)\d+(?=\.)", name))
    return max([7, *numbers]) + 1


def deliver(architecture: str, names: Iterable[str] = (), layers: int = 8) -> Deliveries:
    config = {**with_layers(tiny_configs()[architecture], layers), "quantization_config": MODELOPT}
    engine = get_engine(DEFAULT_ENGINE)
    declaration = read_declaration(Files(config=config))
    fed = [Fed(name, (), (0.5,)) for name in names]
    return engine.deliver(declaration, engine.settle(declaration, WISH), fed, WISH)


def fed_names(name: str, style: str) -> Iterator[str]:
    """What the golden run fed: the key scale, and the value scale of the same spelling where it is not vLLM's own."""
    yield name
    if style != "vllm":
        yield re.sub(r"k_scale$", "v_scale", name).replace(".k_proj.", ".v_proj.")


@pytest.mark.parametrize("architecture", judged())
def test_attention_layers_are_where_the_engine_has_them(architecture: str) -> None:
    truth = golden("vllm-0.33.0", "architectures")[architecture]
    found = {
        re.sub(r"(?<=\.)\d+(?=\.|$)", "{i}", layer.path)
        for layer in deliver(architecture, layers=layers_of(truth["tests"])).attention
    }
    assert (found != set(truth["attention"])) == (architecture in OTHER_PATHS)


def test_names_end_where_the_engine_lets_them_end(record_property: Record) -> None:
    total = 0
    wrong: dict[str, list[str]] = {}
    for architecture in judged():
        tests = golden("vllm-0.33.0", "architectures")[architecture]["tests"]
        for name, truth in tests.items():
            total += 1
            result = deliver(architecture, fed_names(name, truth["style"]), layers_of(tests))
            written = [delivery.target for delivery in result.deliveries if delivery.outcome == "loaded"]
            if (written, exception(result.load.error)) != (truth["writes"], exception(truth["error"])):
                wrong.setdefault(architecture, []).append(name)
    agreed = total - sum(len(names) for names in wrong.values())
    record_property(
        "agreement",
        f"vllm-0.33.0 architectures, names in {len(judged())} of them: {agreed} of {total} agree"
        f" = {100 * agreed / total:.2f} %",
    )
    assert set(wrong) == set(MISSES), {name: wrong.get(name) for name in set(wrong) ^ set(MISSES)}
    assert agreed / total >= 0.98


def test_most_registered_architectures_are_known() -> None:
    executed = golden("vllm-0.33.0", "architectures")
    assert len(judged()) >= 0.97 * len(executed)
    assert len(known_architectures()) >= 280


def test_names_given_to_real_models(record_property: Record) -> None:
    """Handfuls of names of sixteen spellings and more, one architecture after the other."""
    engine = get_engine(DEFAULT_ENGINE)
    assert isinstance(engine, Vllm)
    total = 0
    wrong: dict[str, list[str]] = {}
    models = golden("vllm-0.33.0", "models")["models"]
    for model in models:
        name, quantization = model["architecture"], METHODS[model["method"]]
        declaration = read_declaration(Files(config={**tiny_configs()[name], "quantization_config": quantization}))
        every = [Fed(key, (), (0.5,)) for keys, _, _ in model["tests"] for key in keys]
        setup = engine.setup(declaration, engine.settle(declaration, WISH), every, WISH)
        assert setup is not None
        assert [layer.path for layer in setup.layers] == model["attention"], name
        for keys, writes, error in model["tests"]:
            total += 1
            found = predict(setup, [Fed(key, (), (0.5,)) for key in keys])
            written = sorted(str(each.target) for each in found.deliveries if each.outcome == "loaded")
            if exception(found.load.error) != error or (not error and written != writes):
                wrong.setdefault(name, []).append(f"{keys}: {error or writes} / {found.load.error or written}")
    agreed = total - sum(len(names) for names in wrong.values())
    record_property(
        "agreement",
        f"vllm-0.33.0 names given to real models of {len(models)} architectures: {agreed} of {total} agree"
        f" = {100 * agreed / total:.2f} %",
    )
    assert set(wrong) == set(UNLIKE), {name: wrong.get(name) for name in set(wrong) ^ set(UNLIKE)}
    assert agreed / total >= 0.994
