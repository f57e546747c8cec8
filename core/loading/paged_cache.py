"""A paged KV cache: blocks of tokens in any order, in float8 or in the model's dtype."""

from __future__ import annotations

import torch

from core.loading.float8 import Float8, dequantize, quantize

BLOCK = 16
"""Tokens in a block, as in vLLM."""


class PagedCache:
    """One layer's cache for keys, for values, or for both in one (multi-head latent attention).

    ``blocks`` is [blocks, BLOCK, heads, size]: float8 bits as bytes where ``form`` is given, else ``dtype``. A token's
    slot is its block's number times BLOCK and its place in there; ``block_table`` gives the sequence's blocks.
    """

    def __init__(
        self,
        *,
        block_table: torch.Tensor,
        heads: int,
        size: int,
        form: Float8 | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.form = form
        count = int(block_table.max()) + 1 if block_table.numel() else 0
        kept = torch.uint8 if form is not None else dtype
        self.blocks = torch.zeros(count, BLOCK, heads, size, dtype=kept, device=device)
        self._table = block_table.to(device)

    def slots(self, tokens: int) -> torch.Tensor:
        """The slots of the sequence's first ``tokens`` tokens, in their order."""
        place = torch.arange(tokens, device=self._table.device)
        return self._table[place // BLOCK] * BLOCK + place % BLOCK

    def write(self, values: torch.Tensor, scale: torch.Tensor) -> None:
        """Put a sequence [tokens, heads, size] into its slots. ``scale``: float32, () or one for each head; a cache
        that is not quantized takes none.
        """
        flat = self.blocks.view(-1, *self.blocks.shape[2:])
        if self.form is None:
            kept = values.to(self.blocks.dtype)
        else:
            kept = quantize(values, _for_heads(scale), self.form).view(torch.uint8)
        flat[self.slots(values.shape[0])] = kept

    def read(self, tokens: int, scale: torch.Tensor) -> torch.Tensor:
        """The first ``tokens`` tokens as float32, [tokens, heads, size]."""
        found = self.blocks.view(-1, *self.blocks.shape[2:])[self.slots(tokens)]
        if self.form is None:
            return found.to(torch.float32)
        return dequantize(found.view(self.form.dtype), _for_heads(scale))


def _for_heads(scale: torch.Tensor) -> torch.Tensor:
    """A scale as it broadcasts over [tokens, heads, size]."""
    return scale.reshape(-1, 1) if scale.numel() > 1 else scale.reshape(())


def shuffled_table(tokens: int, *, seed: int) -> torch.Tensor:
    """A block table whose blocks lie in no order, and not all of the cache's blocks are used."""
    needed = -(-tokens // BLOCK)
    order = torch.randperm(2 * needed, generator=torch.Generator().manual_seed(seed))
    return order[:needed]
