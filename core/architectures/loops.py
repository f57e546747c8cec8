"""Loops: the ``load_weights`` that a model class of an older vLLM wrote by hand, as steps.

``resources/architectures/loops-<engine>.json`` (schema ``kvscope.loops/1``) is written by ``survey_loops.py`` from the
engine's sources, and by hand where the survey cannot read a loop (``loops_by_hand.json``):

``loops``: module and class -> the steps every tensor goes through, in order. A step is a list: a word and its operands.
``before``: module and class -> the same kind of steps, which rename tensors before AutoWeightsLoader sees them.

Variables hold names; ``name`` is the tensor's own. ``<old>`` and ``<new>`` stand for the row of a table. The words:

``next``                     leave this tensor, or inside a table go to the next row
``break``                    leave the table, and its ``else`` steps too
``if`` condition steps else  ``else`` may be missing
``rows`` table steps else    for every row [old, new, condition?]; ``else`` runs when no row broke off
``once`` steps               a loop of one round: ``next`` inside leaves it only
``take``                     leave the row unless ``<old>`` is in ``name``; replace it there with ``<new>``
``replace`` to from old new  every occurrence; a fifth operand 1 limits it to the first
``prefix``, ``suffix`` to from text; ``copy`` to from; ``flag`` variable value
``cache scale`` to           ``quant_config.get_cache_scale(name)``
``output scale`` steps       the usual block: a name that get_cache_scale knows is looked up and loaded, after the steps
``remap``                    ``maybe_remap_kv_scale_name(name)``; where that gives nothing, ``next``
``remap`` to from            the same without the ``next``
``skip absent`` endings...   ``next`` when ``name`` is no parameter (and has one of the endings, if any are given)
``look up`` variable         the parameter of that name: KeyError without one (with a further operand ``or none``: none)
``loader``, ``own loader``   its weight_loader: the second raises AttributeError where the parameter has none
``element``                  only the tensor's first element goes on; IndexError for a tensor without dimensions
``element`` ``of a list``    the same, and a tensor without dimensions stays
``one element``              AssertionError unless the tensor has one element; ``squeeze``: its shape becomes ()
``first value``              only the first of all its values goes on
``one value``                ValueError unless the tensor has one element, which goes on alone
``listed`` variable          noted as loaded: TypeError, later, when it is None
``first match`` rows error   the first regular expression that is all of ``name`` rewrites it; ValueError without one
``split``                    the tensor is cut along its first dimension: IndexError without dimensions
``load`` how                 call the loader with the tensor alone, with its ``shard`` too, or the ``default`` loader
``give`` how                 look ``name`` up, take its loader and load: ``tensor``, ``shard`` (own loader), ``either``
``try`` steps error          errors inside become that error
``by method`` {method: steps}, with ``""`` for all others
``foreign``                  takes tensors that are no scales: the walk ends
``experts``                  compares ``name`` with every expert's: TypeError when it is None, in a model that has any

Conditions: ``always``, ``never``, ``not``, ``all``, ``any``; ``in`` text variable, ``starts``/``ends`` variable texts,
``is`` variable text, ``present`` variable (a parameter), ``set`` variable (not None), ``flag`` variable, ``found``
(``look up or none`` found one), ``plain`` (the parameter has no loader of its own), ``quantized`` (the module holds a
quantization config), ``config`` field, ``draft`` (a draft layer's tensor), ``without mla``, ``row`` old|new text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Steps = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class LoopLoader:
    """A class that loads itself in a loop of its own. ``source`` names class and file."""

    source: str
    steps: Steps
