"""Hand-written loops over names, run on real parameters as ``own_loaders.json`` describes them.

They call ``maybe_remap_kv_scale_name`` where the model does: the only traces of KV scales left in model code, kept
because some models of vLLM 0.33.0 still have them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import cast

import torch
from torch import nn

from core.architectures.modules import OwnLoader, StackedName
from core.engines.vllm.experts import no_parameter
from core.engines.vllm.remap import maybe_remap_kv_scale_name
from core.loading.auto_loader import Weights
from core.loading.parameters import Part, default_weight_loader, weight_loader_of
from core.naming.conventions import is_leftover

_AT_END: Mapping[str, type[Exception]] = {"AssertionError": AssertionError, "RuntimeError": RuntimeError}
"""What checks at the end of a loop raise."""

_LAYER = re.compile(r"(?:model\.|model\.language_model\.)?layers\.([0-9]{1,9})\.")


class OwnLoadedModule(nn.Module):
    """A module whose ``load_weights`` was written by hand. ``draft_layers`` are the layers of the draft (MTP) model,
    which the main model leaves out; ``path`` is where the module stands in the model.
    """

    def __init__(self, loader: OwnLoader, draft_layers: range = range(0), path: str = "") -> None:
        super().__init__()
        self.loader = loader
        self.draft_layers = draft_layers
        self.path = path

    def load_weights(self, weights: Weights) -> set[str]:
        """Load the stream; the names of the parameters that were written.

        Raises:
            KeyError: a name is no parameter, and this loop does not skip such names.
            AttributeError: the loop asks for what its class has not, or an expert's tensor has no parameter.
            AssertionError, RuntimeError: the loop ends with a check that this model fails.
        """
        if self.loader.lacks:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {self.loader.lacks!r}")
        rename = self.loader.mapper.map_name
        weights = ((new, tensor) for name, tensor in weights if (new := rename(name)) is not None)
        if below := self.loader.hands_to:
            child = cast("OwnLoadedModule", self.get_submodule(below))
            return {f"{below}.{name}" for name in child.load_weights(weights)}
        parameters = dict(self.named_parameters(remove_duplicate=False))
        experts = {path: module for path, module in self.named_modules() if isinstance(module, ExpertWeights)}
        loaded: set[str] = set()
        for name, tensor in weights:
            of_experts = next((path for path in experts if name.startswith(f"{path}.")), None)
            if of_experts is not None and not is_leftover(name):
                loaded.update(experts[of_experts].load_weights([(name, tensor)]))
                continue
            found = self._find(name, parameters)
            if found is None:
                continue
            target, shard = found
            if target not in parameters and self.loader.absent == "expert":
                _refuse_of_expert(self.path, target)
            parameter = parameters[target]
            load = weight_loader_of(parameter)
            if shard is None or load is default_weight_loader:
                load(parameter, tensor)
            else:
                load(parameter, tensor, shard)
            loaded.add(target)
        if self.loader.at_end:
            kind, _, message = self.loader.at_end.partition(": ")
            raise _AT_END[kind](message)
        return loaded

    def _find(self, name: str, parameters: Mapping[str, torch.Tensor]) -> tuple[str, str | None] | None:
        """The parameter a tensor goes to and its part of it, None where the loop skips the tensor.

        The name may be none of ``parameters``: the loop then raises when it looks it up.
        """
        loader = self.loader
        if any(part in name for part in loader.skip_containing):
            return None
        draft = self._is_draft(name)
        if draft if loader.skip_draft_layers else loader.only_draft_layers and not draft:
            return None
        if loader.remap == "first" and any(part in name for part in loader.remap_if):
            first = self._remap(name, parameters)
            if first is None:
                return None
            name = first
        for stacked in loader.stacked:
            if not self._applies(stacked, name, parameters):
                continue
            keeps = loader.keep_scale_names_in
            if not (keeps and keeps in name and name.endswith((".k_scale", ".v_scale"))):
                name = name.replace(stacked.old, stacked.new)
            if loader.remap in ("stacked", "both") and name.endswith("scale"):
                remapped = self._remap(name, parameters)
                if remapped is None:
                    continue
                name = remapped
            if name.endswith(".bias") and name not in parameters:
                continue
            return name, stacked.old
        return self._find_plain(name, parameters)

    def _applies(self, stacked: StackedName, name: str, parameters: Collection[str]) -> bool:
        if stacked.old not in name or not any(stacked.where in parameter for parameter in parameters):
            return False
        if name not in parameters and any(part in name for part in self.loader.stacked_skips_containing):
            return False
        return not stacked.optional or name.replace(stacked.old, stacked.new) in parameters

    def _find_plain(self, name: str, parameters: Mapping[str, torch.Tensor]) -> tuple[str, None] | None:
        if name.endswith(".bias") and name not in parameters:
            return None
        if self.loader.remap in ("others", "both"):
            remapped = self._remap(name, parameters)
            if remapped is None:
                return None
            name = remapped
        if self.loader.absent == "skip" and name not in parameters:
            return None
        return name, None

    def _remap(self, name: str, parameters: Collection[str]) -> str | None:
        mla = any("mla_attn" in key for key in parameters)
        return maybe_remap_kv_scale_name(name, parameters, mla=mla, by=type(self).__name__)[0]

    def _is_draft(self, name: str) -> bool:
        found = _LAYER.match(name)
        return found is not None and int(found.group(1)) in self.draft_layers


class ExpertWeights(nn.Module):
    """The experts of a mixture, where whole checkpoints are loaded: keeps every tensor below it under its name, but for
    those that no method of quantization has a parameter for.
    """

    def __init__(self, home: torch.device, path: str = "") -> None:
        super().__init__()
        self.home = home
        self.path = path
        self.parts: dict[str, Part] = {}

    def load_weights(self, weights: Weights) -> Iterator[str]:
        """Keep every tensor of the stream. Raises AttributeError for what quantizers left behind."""
        for name, tensor in weights:
            if is_leftover(name):
                _refuse_of_expert(self.path, name)
            self.parts[name] = Part.of(tensor, self.home)
            yield name


def _refuse_of_expert(path: str, name: str) -> None:
    if (said := no_parameter(path, name)) is not None:
        raise AttributeError(said)
