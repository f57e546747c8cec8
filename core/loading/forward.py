"""The attention of the layers that were loaded, run on the device: what the scales they hold cost the output.

Keys and values go through a paged cache with the scales received, with 1.0, with k and v exchanged, and with scales
that fit them; each output is compared with attention in float64 on the host.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import torch

from core.architectures.layers import positive, text_config_of
from core.backends.kv_method import AttentionShape
from core.checkpoint import Checkpoint
from core.engines.vllm.predict import Setup
from core.errors import DeviceError
from core.loading.attention import Attention, MLAAttention
from core.loading.claims import Claim
from core.loading.drawing import QUERIES, TOKENS, Drawn, HeadSizes, Pattern
from core.loading.float8 import Float8, cache_format, losses
from core.loading.forward_result import Data, Forward, LayerForward, Loss, Variant
from core.loading.paged_cache import PagedCache, shuffled_table
from core.loading.projections import Projections
from core.naming.conventions import layer_number
from core.progress import Progress
from core.wording import say

Scales = tuple[torch.Tensor, torch.Tensor]
_DEFAULT_SIZE = 128
_MOST_NUMBERS = 1 << 28
"""Of all heads and tokens: 2 GiB in float64; the largest models have a thirtieth of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardWish:
    """What to run. ``projections``: make keys and values with the checkpoint's own, where they can be read.
    ``claims`` are the checkpoint's scales by layer and role.
    """

    seed: int = 0
    projections: bool = False
    claims: Mapping[str, Mapping[str, Claim]] = field(default_factory=dict)


@dataclass(slots=True)
class ForwardRun:
    """Runs every layer of one model. ``dtype`` is the engine's model dtype."""

    setup: Setup
    wish: ForwardWish
    device: torch.device
    dtype: torch.dtype
    checkpoint: Checkpoint
    progress: Progress
    _warm: bool = False
    _patterns: dict[HeadSizes, Pattern] = field(default_factory=dict)

    def run(self, layers: list[tuple[str, Attention]], raised: Mapping[str, str | None]) -> Forward:
        """Every layer's errors; ``raised`` is what post-processing raised, by layer, which then has no output.

        Raises:
            CancelledError: ``progress`` was cancelled.
        """
        try:
            form = cache_format(self.setup.cache)
            own = {path: cache_format(layer.cache) for path, layer in layers}
        except NotImplementedError as error:
            return self._result("", (), reason=error.args[0])
        self.progress.start(say("Running the attention"), total=len(layers), unit=say("layers"))
        made = Projections(self.checkpoint, self.setup.hf_config) if self.wish.projections else None
        found: list[LayerForward] = []
        with float32_as_such(), few_threads(self.device):
            for place, (path, layer) in enumerate(layers):
                failed = raised.get(path)
                if failed is None:
                    found.append(self._layer(place, path, layer, own[path], made))
                else:
                    note = say("the layer raises {error} after loading", error=failed.removesuffix(": "))
                    found.append(_without(path, note))
                self.progress.advance()
        name = form.name if form is not None else str(self.dtype).removeprefix("torch.")
        return self._result(name, tuple(found), quantized=form is not None)

    def _result(
        self, name: str, layers: tuple[LayerForward, ...], *, reason: str = "", quantized: bool = True
    ) -> Forward:
        return Forward(
            format=name,
            tokens=TOKENS,
            queries=QUERIES,
            seed=self.wish.seed,
            layers=layers,
            reason=reason,
            quantized=quantized,
        )

    def _layer(
        self, place: int, path: str, layer: Attention, form: Float8 | None, made: Projections | None
    ) -> LayerForward:
        sizes = head_sizes(self.setup.hf_config, layer)
        drawn, data, note = self._data(place, path, sizes, made)
        received = (layer.get_buffer("_k_scale"), layer.get_buffer("_v_scale"))
        variants = self._variants(received, drawn, form)
        on_device = tuple(part.to(self.device) for part in (drawn.query, drawn.key, drawn.value))
        caches = self._caches(sizes, form)
        if not self._warm:  # the first pass pays for libraries that are loaded once
            layer(*on_device, caches=caches)
            self._warm = True
        errors: dict[Variant, float] = {}
        lost: dict[Variant, Loss] = {}
        seconds = 0.0
        for variant, scales in variants.items():
            with Stopwatch(self.device) as watch:
                output = layer(*on_device, caches=caches, scales=scales)
            if variant == "received":
                seconds = watch.seconds
            errors[variant] = relative_error(output, drawn.reference)
            if form is not None:
                lost[variant] = _losses(on_device[1], on_device[2], scales, form, latent=sizes.latent)
        return LayerForward(
            path=path,
            layer=layer_number(path),
            data=data,
            errors=errors,
            losses=lost,
            scales=(float(received[0].max()), float(received[1].max())),
            elements=drawn.key.numel(),
            seconds=seconds,
            note=note,
        )

    def _data(self, place: int, path: str, sizes: HeadSizes, made: Projections | None) -> tuple[Drawn, Data, str]:
        note = ""
        if made is not None:
            drawn, why_not = made.make(path, sizes, seed=(self.wish.seed, place), dtype=self.dtype)
            if drawn is not None:
                return drawn, "projected", why_not
            note = say("not projected: {reason}", reason=why_not)
        claimed = self.wish.claims.get(path, {})
        k, v = (claim.amax if (claim := claimed.get(role)) and claim.usable else None for role in ("k", "v"))
        if sizes not in self._patterns:
            self._patterns[sizes] = Pattern(sizes, seed=self.wish.seed)
        # Where one role alone has a range, the other is drawn to the same, as the engine would scale it.
        drawn = self._patterns[sizes].draw(k=k or v, v=v or k, dtype=self.dtype)
        return drawn, "unit" if k is None and v is None else "claimed", note

    def _variants(self, received: Scales, drawn: Drawn, form: Float8 | None) -> dict[Variant, Scales]:
        one = torch.ones((), dtype=torch.float32, device=self.device)
        largest = form.largest if form is not None else 1.0
        k, v = (
            _fitting(part, received[place], largest).to(self.device)
            for place, part in enumerate((drawn.key, drawn.value))
        )
        return {"received": received, "one": (one, one), "swapped": (received[1], received[0]), "fitted": (k, v)}

    def _caches(self, sizes: HeadSizes, form: Float8 | None) -> tuple[PagedCache, PagedCache]:
        table = shuffled_table(TOKENS, seed=self.wish.seed)

        def cache(size: int) -> PagedCache:
            return PagedCache(
                block_table=table, heads=sizes.kv_heads, size=size, form=form, dtype=self.dtype, device=self.device
            )

        keys = cache(sizes.key_size)
        return keys, keys if sizes.latent else cache(sizes.value_size)


def head_sizes(config: Mapping[str, object], layer: Attention) -> HeadSizes:
    """Heads and sizes of a layer, from the model's config; a size it does not say is 128.

    Raises:
        DeviceError: the config gives sizes that no machine could draw numbers for.
    """
    text = text_config_of(config)
    shape: AttentionShape = layer.shape
    if isinstance(layer, MLAAttention):
        latent = positive(text, "kv_lora_rank") or 512
        rotary = positive(text, "qk_rope_head_dim") or 64
        return _drawable(
            HeadSizes(heads=shape.num_heads, kv_heads=1, key_size=latent + rotary, value_size=latent, latent=True)
        )
    hidden = positive(text, "hidden_size", "n_embd", "d_model")
    size = positive(text, "head_dim") or (hidden // shape.total_num_heads if hidden else 0) or _DEFAULT_SIZE
    group = max(shape.num_heads // shape.num_kv_heads, 1)
    return _drawable(
        HeadSizes(heads=group * shape.num_kv_heads, kv_heads=shape.num_kv_heads, key_size=size, value_size=size)
    )


def _drawable(sizes: HeadSizes) -> HeadSizes:
    if TOKENS * sizes.heads * sizes.key_size > _MOST_NUMBERS:
        raise DeviceError(
            say(
                "config.json gives attention layers {heads:,} heads of {size:,} numbers, more than are computed here",
                heads=sizes.heads,
                size=sizes.key_size,
            ),
            remedy=say("Correct its head_dim and hidden_size, or leave --forward out."),
        )
    return sizes


def relative_error(output: torch.Tensor, reference: torch.Tensor) -> float:
    """The norm of the difference over the norm of the reference, in float64 on the host."""
    difference = output.detach().cpu().to(torch.float64) - reference
    return float(difference.norm() / reference.norm())


def _fitting(values: torch.Tensor, like: torch.Tensor, largest: float) -> torch.Tensor:
    """The scale that just holds the values: one, or one for each head where the layer has so many."""
    magnitude = values.to(torch.float32).abs()
    amax = magnitude.amax(dim=(0, 2)) if like.numel() == values.shape[1] > 1 else magnitude.max()
    return amax / largest


def _losses(key: torch.Tensor, value: torch.Tensor, scales: Scales, form: Float8, *, latent: bool) -> Loss:
    k, v = (scale.reshape(-1, 1) if scale.numel() > 1 else scale for scale in scales)
    of_k = losses(key, k, form)
    of_v = (0, 0) if latent else losses(value, v, form)
    return Loss(k_saturated=of_k[0], k_flushed=of_k[1], v_saturated=of_v[0], v_flushed=of_v[1])


def _without(path: str, note: str) -> LayerForward:
    return LayerForward(path=path, layer=layer_number(path), data="unit", errors={}, note=note)


class Stopwatch:
    """Times a block: with events on a GPU, with the clock on the host."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            self._stream = torch.cuda.current_stream(self._device)
            self._events[0].record(self._stream)
        else:
            self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self._events[1].record(self._stream)
            self._events[1].synchronize()
            self.seconds = self._events[0].elapsed_time(self._events[1]) / 1000
        else:
            self.seconds = time.perf_counter() - self._begun


@contextmanager
def float32_as_such() -> Iterator[None]:
    """float32 products in float32, not in TF32, whatever the process has chosen."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def few_threads(device: torch.device) -> Iterator[None]:
    """One thread for work on the CPU: the tensors of a layer are small, and waiting for helpers takes longer."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
