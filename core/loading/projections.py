"""Keys, values and queries made by the checkpoint's own projections, where PyTorch can read their weights.

The hidden states are drawn (a normalized state is close to a standard normal), so what comes out is half real: the
projections, their biases, norms and rotary positions are the model's, the input is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from core.architectures.layers import text_config_of
from core.checkpoint import Checkpoint
from core.errors import KVScopeError
from core.loading.drawing import QUERIES, TOKENS, Drawn, HeadSizes, settle
from core.loading.tensors import read_tensors
from core.naming.conventions import layer_number
from core.wording import say

LARGEST = 1 << 31
"""Bytes of a weight that are read at most."""

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_ROWS = 2048
_DRAWN: str = say("queries are drawn")
_BLOCK = 128  # rows and columns that share one weight_scale_inv, as in DeepSeek's checkpoints


class UnreadableWeightError(KVScopeError):
    """A projection's weight is not there, or stored in a way that is not computed here."""


class Projections:
    """Finds and applies the projections of one checkpoint. ``config`` is the model's config."""

    def __init__(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._text = text_config_of(config)
        self._keys: dict[int, list[str]] = {}
        for name in checkpoint.catalog.names:
            number = layer_number(name)
            if number is not None:
                self._keys.setdefault(number, []).append(name)

    def make(self, path: str, sizes: HeadSizes, *, seed: Sequence[int], dtype: torch.dtype) -> tuple[Drawn | None, str]:
        """The sequence of the layer at ``path``, and a note; None, and why, where there are no usable projections."""
        try:
            return self._make(path, sizes, seed, dtype)
        except KVScopeError as error:
            return None, error.problem

    def _make(self, path: str, sizes: HeadSizes, seed: Sequence[int], dtype: torch.dtype) -> tuple[Drawn, str]:
        number = layer_number(path)
        prefix = self._prefix(path, number, "kv_a_proj_with_mqa" if sizes.latent else "")
        random = np.random.Generator(np.random.PCG64(list(seed)))
        if sizes.latent:
            key, value = self._latent(prefix, sizes, random)
            query, note = None, _DRAWN
        else:
            query, key, value = self._heads(prefix, sizes, random)
            note = "" if query is not None else _DRAWN
        if query is None:
            query = torch.from_numpy(random.standard_normal((QUERIES, sizes.heads, sizes.key_size)))
        drawn = settle(query, key, value, dtype=dtype)
        if not torch.isfinite(drawn.reference).all():
            raise UnreadableWeightError(say("{module} makes numbers that are not finite", module=prefix))
        return drawn, note

    # ------------------------------------------------------------------------------------------------------- two shapes

    def _heads(
        self, prefix: str, sizes: HeadSizes, random: np.random.Generator
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        rows = [sizes.heads * sizes.key_size, sizes.kv_heads * sizes.key_size, sizes.kv_heads * sizes.value_size]
        fused = next((name for name in ("qkv_proj", "query_key_value") if self._has(f"{prefix}.{name}.weight")), None)
        query: torch.Tensor | None = None
        if fused == "query_key_value":
            raise UnreadableWeightError(say("{module} mixes its heads", module=f"{prefix}.{fused}"))
        if fused is not None:
            whole = self._weight(f"{prefix}.{fused}")
            if whole.shape[0] != sum(rows):
                raise _other_rows(f"{prefix}.{fused}", whole.shape[0], sum(rows))
            states = self._states(prefix, whole.shape[1], random)
            query, key, value = torch.split(_product(states, whole), rows, dim=1)
        else:
            weight = self._weight(f"{prefix}.k_proj")
            states = self._states(prefix, weight.shape[1], random)
            key = self._apply(f"{prefix}.k_proj", weight, states, rows[1])
            value = self._apply(f"{prefix}.v_proj", self._weight(f"{prefix}.v_proj"), states, rows[2])
            if self._has(f"{prefix}.q_proj.weight"):
                of_query = self._weight(f"{prefix}.q_proj")
                # A gated query has twice the rows; which half is which differs by model.
                if of_query.shape[0] == rows[0]:
                    query = self._apply(f"{prefix}.q_proj", of_query, states, rows[0])
        key = self._placed(f"{prefix}.k_norm", key.view(TOKENS, sizes.kv_heads, sizes.key_size))
        value = value.view(TOKENS, sizes.kv_heads, sizes.value_size)
        if query is not None:
            query = self._placed(f"{prefix}.q_norm", query.view(TOKENS, sizes.heads, sizes.key_size))[-QUERIES:]
        return query, key, value

    def _latent(self, prefix: str, sizes: HeadSizes, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        name = f"{prefix}.kv_a_proj_with_mqa"
        weight = self._weight(name)
        states = self._states(prefix, weight.shape[1], random)
        both = self._apply(name, weight, states, sizes.key_size)
        latent = self._normed(f"{prefix}.kv_a_layernorm", both[:, : sizes.value_size])
        rotary = self._rotated(both[:, None, sizes.value_size :])[:, 0]
        return torch.cat((latent, rotary), dim=1)[:, None], latent[:, None]

    # ----------------------------------------------------------------------------------------------------------- pieces

    def _states(self, prefix: str, width: int, random: np.random.Generator) -> torch.Tensor:
        """Drawn hidden states as the layer's input norm would leave them, [tokens, width]."""
        states = torch.from_numpy(random.standard_normal((TOKENS, width)))
        norm = f"{prefix.rpartition('.')[0]}.input_layernorm.weight"
        return states * self._norm_weight(norm) if self._has(norm) else states

    def _apply(self, name: str, weight: torch.Tensor, states: torch.Tensor, rows: int) -> torch.Tensor:
        if weight.shape[0] != rows:
            raise _other_rows(name, weight.shape[0], rows)
        bias = f"{name}.bias"
        out = _product(states, weight)
        return out + self._read(bias).to(torch.float64) if self._has(bias) else out

    def _placed(self, norm: str, heads: torch.Tensor) -> torch.Tensor:
        """Normalized, where the model normalizes its heads, and rotated to their positions."""
        return self._rotated(self._normed(norm, heads) if self._has(f"{norm}.weight") else heads)

    def _normed(self, name: str, values: torch.Tensor) -> torch.Tensor:
        scaled = values * torch.rsqrt(values.pow(2).mean(dim=-1, keepdim=True) + 1e-6)
        weight = f"{name}.weight"
        if not self._has(weight):
            return scaled
        found = self._norm_weight(weight)
        return scaled * found if found.numel() == values.shape[-1] else scaled

    def _norm_weight(self, name: str) -> torch.Tensor:
        weight = self._read(name).to(torch.float64)
        # These store how far their norms are from 1.
        offset = str(self._text.get("model_type", "")).startswith(("gemma", "qwen3_next", "qwen3_5"))
        return weight + 1.0 if offset else weight

    def _rotated(self, heads: torch.Tensor) -> torch.Tensor:
        """Rotary positions on [tokens, heads, size], without any stretching of them for long contexts."""
        nested = self._text.get("rope_parameters")
        theta = self._text.get("rope_theta") or (nested.get("rope_theta") if isinstance(nested, dict) else None)
        share = self._text.get("partial_rotary_factor", 1.0)
        base = float(theta) if isinstance(theta, int | float) and theta > 0 else 10000.0
        turned = int(heads.shape[-1] * (share if isinstance(share, int | float) else 1.0)) // 2 * 2
        half = turned // 2
        speeds = base ** (-torch.arange(half, dtype=torch.float64) / max(half, 1))
        angles = (torch.arange(len(heads), dtype=torch.float64)[:, None] * speeds)[:, None]
        first, second, rest = heads[..., :half], heads[..., half:turned], heads[..., turned:]
        sine, cosine = angles.sin(), angles.cos()
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine, rest), dim=-1)

    # ---------------------------------------------------------------------------------------------------------- reading

    def _prefix(self, path: str, number: int | None, leaf: str) -> str:
        """The attention module in the checkpoint that holds the layer's projections."""
        wanted = (leaf,) if leaf else ("k_proj", "qkv_proj")
        names = self._keys.get(number, []) if number is not None else []
        suffix = re.compile(rf"^(.*)\.(?:{'|'.join(wanted)})\.(?:weight|weight_packed|qweight)$")
        found = {match.group(1) for name in names if (match := suffix.match(name))}
        mine = {prefix for prefix in found if prefix.rpartition(".")[2] in path.split(".")} or found
        if len(mine) != 1:
            problem = say(
                "the checkpoint has several projections for {layer}"
                if mine
                else "the checkpoint has no projections for {layer}",
                layer=path,
            )
            raise UnreadableWeightError(problem)
        return mine.pop()

    def _has(self, name: str) -> bool:
        return bool(self._checkpoint.catalog.rows_of(name))

    def _read(self, name: str) -> torch.Tensor:
        rows = self._checkpoint.catalog.rows_of(name)
        if not rows:
            raise UnreadableWeightError(say("there is no {name}", name=name))
        if self._checkpoint.catalog.entry(rows[0]).nbytes > LARGEST:
            raise UnreadableWeightError(say("{name} is larger than {size} GiB", name=name, size=LARGEST >> 30))
        return next(iter(read_tensors(self._checkpoint, rows[:1])))[1]

    def _weight(self, name: str) -> torch.Tensor:
        """A projection's weight as float32, [rows, width]; float8 with its scale for all, each row or each block."""
        if not self._has(f"{name}.weight"):
            raise UnreadableWeightError(say("{name} is packed", name=name))
        weight = self._read(f"{name}.weight")
        if weight.dim() == 2 and weight.dtype in _FLOATS:
            return weight.to(torch.float32)
        if weight.dim() != 2 or weight.dtype not in _FLOAT8:
            kind = str(weight.dtype).removeprefix("torch.")
            problem = say("{name}.weight is {kind}, which is not computed here", name=name, kind=kind)
            raise UnreadableWeightError(problem)
        for leaf in ("weight_scale", "weight_scale_inv"):
            if self._has(f"{name}.{leaf}"):
                return weight.to(torch.float32) * _spread(self._read(f"{name}.{leaf}"), weight.shape, name)
        raise UnreadableWeightError(say("{name}.weight is float8 without a scale", name=name))


def _other_rows(name: str, rows: int, wanted: int) -> UnreadableWeightError:
    return UnreadableWeightError(say("{name} has {rows} rows, and not {wanted}", name=name, rows=rows, wanted=wanted))


def _product(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``states`` [tokens, width] by a weight [rows, width], in float64: float32 sums depend on the number of threads.
    Some rows at a time, so that large weights are not held twice.
    """
    return torch.cat([states @ part.to(torch.float64).T for part in torch.split(weight, _ROWS)], dim=1)


def _spread(scale: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    """A weight's scale as it broadcasts over [rows, width]."""
    scale = scale.to(torch.float32)
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.numel() == shape[0]:
        return scale.reshape(-1, 1)
    if scale.dim() == 2 and tuple(scale.shape) == tuple(-(-side // _BLOCK) for side in shape):
        rows = scale.repeat_interleave(_BLOCK, dim=0)[: shape[0]]
        return rows.repeat_interleave(_BLOCK, dim=1)[:, : shape[1]]
    raise UnreadableWeightError(
        say(
            "{name} has a weight scale of shape {shape}, which is not computed here",
            name=name,
            shape=list(scale.shape),
        )
    )
