"""Float8 against arithmetic in float64 over all 256 numbers of each format; the paged cache; attention."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from core.backends.kv_method import AttentionShape, CacheSetup
from core.loading.attention import Attention, MLAAttention, attend
from core.loading.float8 import FORMATS, Float8, cache_format, dequantize, losses, quantize
from core.loading.paged_cache import BLOCK, PagedCache, shuffled_table

ONE = torch.ones(())
CPU = torch.device("cpu")


def _numbers(form: Float8) -> np.ndarray:
    """Every finite number of the format, as float64, sorted, with the number of its bits."""
    bits = torch.arange(256, dtype=torch.uint8)
    values = bits.view(form.dtype).to(torch.float64).numpy()
    rows = np.stack([values, bits.numpy().astype(np.float64)], axis=1)
    finite: np.ndarray = rows[np.isfinite(values)]
    return finite


def _nearest(value: float, numbers: np.ndarray) -> float:
    """The nearest number; of two, the one whose last bit is 0."""
    distance = np.abs(numbers[:, 0] - value)
    nearest = numbers[distance == distance.min()]
    return float(nearest[np.argsort(nearest[:, 1] % 2)][0, 0])


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_quantizing_is_division_and_the_nearest_number(form: Float8) -> None:
    random = np.random.default_rng(7)
    numbers = _numbers(form)
    assert numbers[:, 0].max() == form.largest
    values = torch.tensor(random.standard_t(2, 400) * form.largest / 20, dtype=torch.float32)
    for scale in (1.0, 0.3, 7.0):
        found = quantize(values, torch.tensor(scale), form).to(torch.float64).tolist()
        exact = (values / scale).to(torch.float64).tolist()  # divided in float32, as the kernels do
        assert found == [_nearest(value, numbers) for value in exact]
        back = dequantize(quantize(values, torch.tensor(scale), form), torch.tensor(scale))
        assert back.tolist() == (torch.tensor(found, dtype=torch.float32) * scale).tolist()


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_what_is_too_large_saturates_and_nan_stays(form: Float8) -> None:
    values = torch.tensor([math.inf, -math.inf, 1e30, -1e30, math.nan])
    stored = quantize(values, ONE, form).to(torch.float32).tolist()
    assert stored[:4] == [form.largest, -form.largest, form.largest, -form.largest]
    assert math.isnan(stored[4])


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_losses_count_what_rounding_does_not_explain(form: Float8) -> None:
    smallest = float(np.abs(_numbers(form)[:, 0])[np.abs(_numbers(form)[:, 0]) > 0].min())
    step = form.limit - form.largest
    values = torch.tensor([form.largest, form.largest + 0.9 * step, form.largest + 1.1 * step, -1e9, 0.0, smallest / 4])
    assert losses(values, ONE, form) == (2, 1)
    assert losses(values * 8, torch.tensor(8.0), form) == (2, 1)


@pytest.mark.parametrize(
    ("dtype", "fnuz", "name"),
    [
        ("fp8", False, "float8_e4m3fn"),
        ("fp8_e4m3", True, "float8_e4m3fnuz"),
        ("fp8_e5m2", False, "float8_e5m2"),
        ("fp8_e5m2", True, "float8_e5m2fnuz"),
    ],
)
def test_the_caches_format(dtype: str, fnuz: bool, name: str) -> None:
    found = cache_format(CacheSetup(dtype=dtype, quantized=True, fnuz=fnuz))
    assert found is FORMATS[name]


def test_a_plain_cache_has_no_format_and_others_are_not_computed() -> None:
    assert cache_format(CacheSetup(dtype="auto", quantized=False)) is None
    with pytest.raises(NotImplementedError, match="a KV cache of nvfp4 is not computed here"):
        cache_format(CacheSetup(dtype="nvfp4", quantized=True))
    with pytest.raises(NotImplementedError, match="fp8_per_token_head"):
        cache_format(CacheSetup(dtype="fp8_per_token_head", quantized=True, per_token_head=True))


# ------------------------------------------------------------------------------------------------------- paged cache


def _cache(tokens: int, *, heads: int = 2, size: int = 4, form: Float8 | None = None) -> PagedCache:
    table = shuffled_table(tokens, seed=3)
    return PagedCache(block_table=table, heads=heads, size=size, form=form, dtype=torch.bfloat16, device=CPU)


def test_tokens_lie_in_their_blocks() -> None:
    table = shuffled_table(40, seed=3)
    assert len(table) == 3
    assert len(set(table.tolist())) == 3
    assert table.tolist() != sorted(table.tolist())
    cache = _cache(40)
    values = torch.arange(40 * 8, dtype=torch.float32).view(40, 2, 4)
    cache.write(values, ONE)
    for token in (0, BLOCK - 1, BLOCK, 39):
        block, place = int(table[token // BLOCK]), token % BLOCK
        assert torch.equal(cache.blocks[block, place].to(torch.float32), values[token].to(torch.bfloat16).float())
    assert torch.equal(cache.read(40, ONE), values.to(torch.bfloat16).to(torch.float32))


def test_every_head_has_its_own_scale() -> None:
    form = FORMATS["float8_e4m3fn"]
    cache, scale = _cache(5, form=form), torch.tensor([0.5, 2.0])
    values = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1))
    cache.write(values, scale)
    assert cache.blocks.dtype == torch.uint8
    found = cache.read(5, scale)
    for head in (0, 1):
        expected = dequantize(quantize(values[:, head], scale[head], form), scale[head])
        assert torch.equal(found[:, head], expected)
    assert not torch.equal(cache.read(5, torch.tensor([1.0, 1.0])), found)


# --------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (8, 2), (6, 1)])
def test_attention_is_pytorchs_own(heads: int, kv_heads: int) -> None:
    random = torch.Generator().manual_seed(5)
    query, key, value = (
        torch.randn(count, of, size, generator=random, dtype=torch.float64)
        for count, of, size in ((3, heads, 8), (10, kv_heads, 8), (10, kv_heads, 6))
    )
    mask = torch.tensor([[place <= 7 + row for place in range(10)] for row in range(3)])
    q, k, v = (part.repeat_interleave(heads // part.shape[1], dim=1).transpose(0, 1) for part in (query, key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attend(query, key, value), expected.transpose(0, 1), rtol=1e-12, atol=1e-12)


def _layer(kind: type[Attention]) -> Attention:
    shape = AttentionShape(num_heads=4, num_kv_heads=2, total_num_heads=4, total_num_kv_heads=2)
    cache = CacheSetup(dtype="fp8", quantized=True)
    layer = kind(shape=shape, cache=cache, params_dtype=torch.bfloat16)
    layer.get_buffer("_k_scale").fill_(0.25)
    layer.get_buffer("_v_scale").fill_(4.0)
    return layer


def test_a_layer_attends_with_the_scales_it_holds() -> None:
    form, random = FORMATS["float8_e4m3fn"], torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(n, h, 4, generator=random) for n, h in ((3, 4), (20, 2), (20, 2)))
    layer = _layer(Attention)
    found = layer(query, key, value, caches=(_cache(20, form=form), _cache(20, form=form)))
    k, v = (
        dequantize(quantize(part, s, form), s) for part, s in ((key, torch.tensor(0.25)), (value, torch.tensor(4.0)))
    )
    assert torch.equal(found, attend(query, k, v))
    other = layer(query, key, value, caches=(_cache(20, form=form), _cache(20, form=form)), scales=(ONE, ONE))
    assert not torch.equal(other, found)


def test_latent_attention_uses_the_scale_of_k_for_both() -> None:
    form, random = FORMATS["float8_e4m3fn"], torch.Generator().manual_seed(5)
    query, latent = (torch.randn(n, h, 4, generator=random) for n, h in ((3, 4), (20, 1)))
    cache = _cache(20, heads=1, form=form)
    layer = _layer(MLAAttention)
    found = layer(query, latent, latent[..., :3], caches=(cache, cache))
    scale = torch.tensor(0.25)
    k = dequantize(quantize(latent, scale, form), scale)
    assert found.shape == (3, 4, 3)
    assert torch.equal(found, attend(query, k, k[..., :3]))
