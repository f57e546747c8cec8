"""``AutoWeightsLoader``: loads a stream of named tensors into any module tree, renaming KV-cache scales on the way.

Source of the rules: vLLM 0.33.0, models/utils.py (and 0.25.0 and 0.27.1, which leave out names by themselves instead of
by rules); the errors are worded as there, since users search for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, cast

import torch
from torch import nn

from core.engines.vllm.walk import ROTARY_DROPPER, as_set
from core.loading.parameters import weight_loader_of
from core.naming.mapper import WeightsMapper

Weights = Iterable[tuple[str, torch.Tensor]]


class QuantConfig(Protocol):
    """What the loader asks of a module's ``quant_config``; every :class:`core.backends.base.Backend` is one."""

    @property
    def ignored_suffixes(self) -> tuple[str, ...]: ...

    def get_cache_scale_mapper(self) -> WeightsMapper: ...

    def get_checkpoint_weight_mapper(self) -> WeightsMapper: ...


class AutoWeightsLoader:
    """Loads weights into ``module`` by their names, part by part down the tree.

    A child module with a ``load_weights`` method loads what lies below it by itself; a parameter with a
    ``weight_loader`` takes its tensor through that. A name that leads nowhere raises, unless it begins with one of
    ``ignore_unexpected_prefixes`` or ends with one of ``ignore_unexpected_suffixes``; biases are always ignored.
    Before vLLM 0.33, names that begin with one of ``skip_prefixes`` or hold one of ``skip_substrs`` are left out, and
    the mapper does not drop those of rotary embeddings (``drops_rotary``).
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        ignore_unexpected_prefixes: Sequence[str] = (),
        ignore_unexpected_suffixes: Sequence[str] = (),
        skip_prefixes: Sequence[str] = (),
        skip_substrs: Sequence[str] = (),
        drops_rotary: bool = True,
    ) -> None:
        self.module = module
        self.skip_prefixes = tuple(skip_prefixes)
        self.skip_substrs = tuple(skip_substrs)
        self.drops_rotary = drops_rotary
        self.ignore_unexpected_prefixes = tuple(ignore_unexpected_prefixes)
        self.ignore_unexpected_suffixes = tuple(ignore_unexpected_suffixes)

    def load_weights(self, weights: Weights, *, mapper: WeightsMapper | None = None) -> set[str]:
        """Load every tensor of the stream, in its order; the names of the parameters that were written.

        ``mapper`` are the model's own rules. The quantization config's rules for KV-cache scales are merged after
        them with ``|``, where the module or one of its direct children has a ``quant_config`` that is not None.

        Raises:
            ValueError: a name leads to no parameter, or goes on below one.
            TypeError: a mapper cannot be merged; the message names both classes.
        """
        merged, suffixes = self._merge(mapper if mapper is not None else WeightsMapper())
        # Kept on the loader, as in vLLM: what is ignored depends on what the last load found.
        self.ignore_unexpected_suffixes = suffixes
        wanted = ((name, tensor) for name, tensor in merged.apply(weights) if not self._is_skipped(name))
        return set(self._load_module("", self.module, wanted))

    def _is_skipped(self, name: str) -> bool:
        return name.startswith(self.skip_prefixes) or any(part in name for part in self.skip_substrs)

    def _merge(self, mapper: WeightsMapper) -> tuple[WeightsMapper, tuple[str, ...]]:
        suffixes = (*self.ignore_unexpected_suffixes, ".bias")
        config = self.quant_config()
        if config is not None:
            mapper = mapper | config.get_cache_scale_mapper()
            mapper = mapper | config.get_checkpoint_weight_mapper()
            suffixes += tuple(config.ignored_suffixes)
        return (mapper | ROTARY_DROPPER if self.drops_rotary else mapper), suffixes

    def quant_config(self) -> QuantConfig | None:
        """The quantization config of the first of the module and its direct children that has the attribute.

        That first one decides, also when the attribute is None there.
        """
        for holder in (self.module, *self.module.children()):
            if hasattr(holder, "quant_config"):
                return cast("QuantConfig | None", holder.quant_config)
        return None

    def _load_module(self, base: str, module: nn.Module, weights: Weights) -> Iterator[str]:
        """Load ``weights``, whose names are relative to ``module``, the submodule at ``base``."""
        own = getattr(module, "load_weights", None)
        if module is not self.module and callable(own):  # the loader's own module is being loaded by this very loop
            for name in own(weights) or ():
                yield _join(base, name)
        named = module._modules  # noqa: SLF001 - named_children() leaves out a module's second name
        children = {name: child for name, child in named.items() if child is not None}
        parameters = _loadable(module)
        for first, group in _grouped_by_first_part(weights):
            path = _join(base, first)
            if first in children:
                yield from self._load_module(path, children[first], group)
            elif first in parameters:
                yield from self._load_parameter(path, parameters[first], group)
            elif not (self._is_ignored(f"{path}.") or self._is_ignored(path)):
                raise ValueError(self._unexpected(base, module, path))

    def _load_parameter(self, path: str, parameter: torch.Tensor, weights: Weights) -> Iterator[str]:
        for rest, tensor in weights:
            name = _join(path, rest)
            if rest:
                if self._is_ignored(name):
                    continue
                raise ValueError(f"Attempted to load nested weight {name!r} into a single parameter {path!r}")
            weight_loader_of(parameter)(parameter, tensor)
            yield name

    def _is_ignored(self, path: str) -> bool:
        return path.startswith(self.ignore_unexpected_prefixes) or path.endswith(self.ignore_unexpected_suffixes)

    def _unexpected(self, base: str, module: nn.Module, path: str) -> str:
        available = {_join(base, name) for name, _ in module.named_parameters(remove_duplicate=False)}
        return (
            f"There is no module or parameter named {path!r} in {type(self.module).__name__}. "
            f"The available parameters belonging to {base} ({type(module).__name__}) are: {as_set(available)}"
        )


def _loadable(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's own parameters and persistent buffers: what a state dict would hold."""
    found: dict[str, torch.Tensor] = dict(module.named_parameters(recurse=False))
    kept_out = module._non_persistent_buffers_set  # noqa: SLF001 - torch has no public way to ask
    for name, buffer in module.named_buffers(recurse=False):
        if name not in kept_out:
            found.setdefault(name, buffer)
    return found


def _grouped_by_first_part(weights: Weights) -> Iterator[tuple[str, Weights]]:
    """Neighbours in the stream that share the first part of their name, with the rest of it ("" where none is)."""
    split = ((name.partition("."), tensor) for name, tensor in weights)
    for first, group in itertools.groupby(split, key=lambda item: item[0][0]):
        yield first, ((parts[2], tensor) for parts, tensor in group)


def _join(base: str, name: str) -> str:
    return f"{base}.{name}" if base and name else base or name
