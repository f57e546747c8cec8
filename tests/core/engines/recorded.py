"""A vLLM that none of the built-in profiles is of, as ``kvscope probe`` reads it.

``probes/vllm-0.30.0.json`` is what the probe's script printed in an environment with the real vLLM 0.30.0 (sample names
left out). Where KVSCOPE_VLLM_PYTHON names a Python with a vLLM, that one is probed instead.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from core.engines.probe import probe
from core.engines.probed import ProbedEngine, parse_json, read_probe

RECORDED = "0.30.0"


@cache
def installed_vllm() -> ProbedEngine:
    """The first vLLM that KVSCOPE_VLLM_PYTHON names, probed once; the recorded one without it."""
    python = os.environ.get("KVSCOPE_VLLM_PYTHON", "").split(os.pathsep)[0]
    return probe(Path(python), timeout=600) if python else recorded_vllm()


@cache
def recorded_vllm() -> ProbedEngine:
    """The recorded vLLM 0.30.0."""
    document = parse_json((Path(__file__).with_name("probes") / f"vllm-{RECORDED}.json").read_bytes())
    return ProbedEngine(
        reading=read_probe(document), python="env/bin/python", date="2026-11-22T21:04:00+00:00", document=document
    )
