"""``AutoWeightsLoader`` on modules made by hand: what a model from outside this tree gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from core.backends import get_backend
from core.backends.base import Backend
from core.loading.attention import Attention
from core.loading.auto_loader import AutoWeightsLoader
from core.loading.kv_cache import BaseKVCacheMethod
from core.loading.linear import FusedLinear
from core.loading.parameters import Part, WeightPlaceholder
from core.naming.mapper import Rule, RuleKind, WeightsMapper, rules
from tests.core.loading.running import attention

FP8 = get_backend("fp8")
Weights = Iterable[tuple[str, torch.Tensor]]


def _scalars(*names: str) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor for each name: 0.5, 0.25, 0.125 ..."""
    for index, name in enumerate(names):
        yield name, torch.tensor(0.5 ** (index + 1))


def _attention() -> Attention:
    return attention(BaseKVCacheMethod())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.Module()
        self.self_attn.attn = _attention()
        self.norm = nn.LayerNorm(2)


class Model(nn.Module):
    """An out-of-tree model: it knows nothing of scales, its loader does."""

    def __init__(self, backend: Backend | None = FP8, layers: int = 2) -> None:
        super().__init__()
        self.quant_config = backend
        self.layers = nn.ModuleList(Block() for _ in range(layers))

    def load_weights(self, weights: Weights) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights)


class CausalLM(nn.Module):
    def __init__(self, backend: Backend | None = FP8) -> None:
        super().__init__()
        self.model = Model(backend)
        self.lm_head = nn.Linear(2, 3, bias=False)


def _loader(module: nn.Module, mapper: WeightsMapper | None = None, *names: str) -> set[str]:
    return AutoWeightsLoader(module).load_weights(_scalars(*names), mapper=mapper)


def test_scales_of_any_convention_reach_the_attention_layers() -> None:
    model = CausalLM()
    written = _loader(
        model,
        None,
        "model.layers.0.self_attn.k_proj.k_scale",
        "model.layers.0.self_attn.v_proj.output_scale",
        "model.layers.1.self_attn.attn.k_scale",
        "model.layers.1.self_attn.v_scale",
    )
    assert written == {f"model.layers.{layer}.self_attn.attn.{role}_scale" for layer in (0, 1) for role in "kv"}
    held = [parameter.item() for name, parameter in model.named_parameters() if name.endswith((".k_scale", ".v_scale"))]
    assert held == [0.5, 0.25, 0.125, 0.0625]


def test_ordinary_weights_load_by_name_and_value() -> None:
    model = CausalLM()
    weight = torch.arange(6, dtype=torch.float32).reshape(3, 2)
    norm = torch.tensor([2.0, 3.0])
    written = AutoWeightsLoader(model).load_weights([("model.layers.0.norm.weight", norm), ("lm_head.weight", weight)])
    assert written == {"model.layers.0.norm.weight", "lm_head.weight"}
    assert torch.equal(model.lm_head.weight, weight)
    assert torch.equal(model.model.layers[0].norm.weight, norm)  # type: ignore[union-attr,arg-type]


def test_the_models_own_rules_come_first() -> None:
    mapper = WeightsMapper(rules(RuleKind.PREFIX, (("transformer.h.", "model.layers."), ("dropped.", None))))
    written = _loader(CausalLM(), mapper, "transformer.h.1.self_attn.k_scale", "dropped.weight")
    assert written == {"model.layers.1.self_attn.attn.k_scale"}


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"])
def test_rotary_tables_are_dropped(name: str) -> None:
    assert _loader(CausalLM(), None, name) == set()


# ---------------------------------------------------------------------------------------------------- the quant config


def test_the_quant_config_is_found_on_the_module_or_a_direct_child() -> None:
    assert AutoWeightsLoader(Model()).quant_config() is FP8
    assert AutoWeightsLoader(CausalLM()).quant_config() is FP8
    outer = nn.Module()
    outer.wrapped = CausalLM()
    assert AutoWeightsLoader(outer).quant_config() is None


def test_the_first_that_has_the_attribute_decides_even_when_it_is_none() -> None:
    model = CausalLM()
    model.quant_config = None  # type: ignore[assignment]
    assert AutoWeightsLoader(model).quant_config() is None


def test_without_a_quant_config_nothing_is_renamed_and_leftovers_raise() -> None:
    with pytest.raises(ValueError, match=r"named 'layers.0.self_attn.k_scale' in Model\. .* \(Module\) are: "):
        _loader(Model(None), None, "layers.0.self_attn.k_scale")


class Untyped(Backend):
    """A backend whose mapper is no mapper."""

    method = "untyped"

    def get_cache_scale_mapper(self) -> WeightsMapper:
        return None  # type: ignore[return-value]


def test_a_mapper_that_is_none_is_a_type_error_with_both_names() -> None:
    with pytest.raises(TypeError) as caught:
        _loader(Model(Untyped()), None, "layers.0.self_attn.k_scale")
    assert str(caught.value).startswith("cannot merge core.naming.mapper.WeightsMapper | builtins.NoneType")
    assert "get_cache_scale_mapper() returned nothing" in str(caught.value)


def test_a_dict_in_place_of_the_models_mapper_is_a_type_error_with_both_names() -> None:
    with pytest.raises(TypeError, match=r"cannot merge builtins\.dict \| core\.naming\.mapper\.WeightsMapper"):
        _loader(Model(), {"a": "b"}, "layers.0.self_attn.k_scale")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Counting(WeightsMapper):
    """A mapper from outside with a field of its own."""

    limit: int = 3


@dataclass(frozen=True)
class Logging(WeightsMapper):
    """Another one."""

    log: str = ""


class WithCounting(Backend):
    method = "counting"

    def get_cache_scale_mapper(self) -> WeightsMapper:
        return Counting(rules=super().get_cache_scale_mapper().rules)


def test_a_subclass_of_the_mapper_merges() -> None:
    assert _loader(Model(WithCounting()), None, "layers.0.self_attn.k_scale") == {"layers.0.self_attn.attn.k_scale"}


def test_two_subclasses_that_know_nothing_of_each_other_are_a_type_error_with_both_names() -> None:
    with pytest.raises(TypeError, match=r"cannot merge .*Logging \| .*Counting: neither is a subclass of the other"):
        _loader(Model(WithCounting()), Logging(), "layers.0.self_attn.k_scale")


# ----------------------------------------------------------------------------------------------------- unexpected names


def test_an_unexpected_name_raises_as_in_vllm() -> None:
    with pytest.raises(ValueError, match="There is no module or parameter") as caught:
        _loader(Model(layers=1), None, "layers.0.norm.scale")
    assert str(caught.value) == (  # but for the order, which in vLLM is another on every run
        "There is no module or parameter named 'layers.0.norm.scale' in Model. "
        "The available parameters belonging to layers.0.norm (LayerNorm) are: "
        "{'layers.0.norm.bias', 'layers.0.norm.weight'}"
    )


def test_scales_are_ignored_only_where_just_the_leaf_is_missing() -> None:
    model = Model(get_backend("awq"), layers=1)
    model.layers[0].self_attn.attn = attention(None)  # type: ignore[union-attr]
    assert _loader(model, None, "layers.0.self_attn.k_proj.k_scale", "layers.0.self_attn.v_zero_point") == set()
    with pytest.raises(ValueError, match=r"named 'layers\.0\.norm\.attn'"):
        _loader(model, None, "layers.0.norm.k_scale")
    with pytest.raises(ValueError, match=r"named 'layers\.7'"):
        _loader(model, None, "layers.7.self_attn.attn.k_scale")


def test_biases_are_ignored_without_any_config() -> None:
    assert _loader(Model(None), None, "layers.0.self_attn.bias") == set()


def test_ignored_prefixes_and_suffixes() -> None:
    loader = AutoWeightsLoader(Model(), ignore_unexpected_prefixes=["vision."], ignore_unexpected_suffixes=[".extra"])
    assert loader.load_weights(_scalars("vision.tower.weight", "layers.0.extra")) == set()


def test_a_name_below_a_parameter_raises_unless_ignored() -> None:
    with pytest.raises(ValueError, match=r"load nested weight 'layers\.0\.norm\.weight\.scale' into a single"):
        _loader(Model(), None, "layers.0.norm.weight.scale")
    assert _loader(Model(), None, "layers.0.norm.weight.bias") == set()


def test_the_stream_is_read_lazily_up_to_the_tensor_that_fails() -> None:
    pulled: list[str] = []

    def stream() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in _scalars("layers.0.self_attn.k_scale", "nowhere", "layers.1.self_attn.k_scale"):
            pulled.append(name)
            yield name, tensor

    with pytest.raises(ValueError, match="named 'nowhere' in Model"):
        AutoWeightsLoader(Model()).load_weights(stream())
    assert pulled == ["layers.0.self_attn.k_scale", "nowhere"]


# ------------------------------------------------------------------------------------------------------- nested loaders


def test_a_child_with_a_loader_loads_itself_and_its_names_come_back_in_full() -> None:
    assert _loader(CausalLM(), None, "model.layers.1.self_attn.k_scale") == {"model.layers.1.self_attn.attn.k_scale"}


def test_the_innermost_loader_decides_what_is_ignored() -> None:
    strict = CausalLM()
    strict.model.quant_config = None
    strict.quant_config = FP8  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"named 'layers\.0\.norm\.attn' in Model"):
        _loader(strict, None, "model.layers.0.norm.k_scale")


class Silent(nn.Module):
    """Consumes its tensors and does not say which."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def load_weights(self, weights: Weights) -> None:
        self.seen += [name for name, _ in weights]


def test_a_loader_that_returns_nothing_is_no_error() -> None:
    outer = nn.Module()
    outer.silent = Silent()
    outer.norm = nn.LayerNorm(1)
    weights = [("silent.a.b", torch.zeros(1)), ("norm.weight", torch.ones(1))]
    assert AutoWeightsLoader(outer).load_weights(weights) == {"norm.weight"}
    assert outer.silent.seen == ["a.b"]


def test_a_loader_that_loads_itself_does_not_recurse_for_ever() -> None:
    assert Model().load_weights(_scalars("layers.0.self_attn.k_scale")) == {"layers.0.self_attn.attn.k_scale"}


# ------------------------------------------------------------------------------------------------ buffers, fused layers


def test_persistent_buffers_are_loadable_and_others_are_not() -> None:
    module = nn.Module()
    module.register_buffer("kept", torch.zeros(2))
    module.register_buffer("passing", torch.zeros(2), persistent=False)
    assert AutoWeightsLoader(module).load_weights([("kept", torch.ones(2))]) == {"kept"}
    assert module.get_buffer("kept").tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="no module or parameter named 'passing'"):
        AutoWeightsLoader(module).load_weights([("passing", torch.ones(2))])


class QKVParallelLinear(FusedLinear):
    def __init__(self) -> None:
        super().__init__()
        self.weight = WeightPlaceholder()


STACKED = WeightsMapper(
    tuple(Rule(RuleKind.STACKED, f".{part}_proj", ".qkv_proj", shard=part) for part in ("q", "k", "v"))
)


def _fused() -> nn.Module:
    module = nn.Module()
    module.self_attn = nn.Module()
    module.self_attn.qkv_proj = QKVParallelLinear()
    return module


def _parts(module: nn.Module) -> dict[object, Part]:
    weight = module.get_parameter("self_attn.qkv_proj.weight")
    assert isinstance(weight, WeightPlaceholder)
    return weight.parts


def test_stacked_names_reach_a_fused_layer_by_shard() -> None:
    module = _fused()
    weights = [(f"self_attn.{part}_proj.weight", torch.full((2, 2), float(index))) for index, part in enumerate("qkv")]
    assert AutoWeightsLoader(module).load_weights(weights, mapper=STACKED) == {"self_attn.qkv_proj.weight"}
    assert {shard: part.tensor[0, 0].item() for shard, part in _parts(module).items()} == {"q": 0.0, "k": 1.0, "v": 2.0}


def test_a_name_the_fused_layer_has_not_is_taken_for_the_layer() -> None:
    with pytest.raises(AttributeError) as caught:
        AutoWeightsLoader(_fused()).load_weights(_scalars("self_attn.k_proj.output_scale"), mapper=STACKED)
    assert str(caught.value) == "'QKVParallelLinear' object has no attribute 'data'"


def test_a_name_below_a_fused_layer_that_leads_nowhere() -> None:
    with pytest.raises(AttributeError, match="QKVParallelLinear has no attribute `attn`"):
        AutoWeightsLoader(_fused()).load_weights(_scalars("self_attn.k_proj.attn.k_scale"), mapper=STACKED)
