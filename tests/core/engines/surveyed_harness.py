"""A vLLM harness, and what the survey stands in for: it then builds every model that was surveyed on a CPU.

python surveyed_harness.py HARNESS model FOLDER ... [the harness's own options]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from resources.architectures import survey_worker
from resources.architectures.survey_vllm import read_configs

CONFIGS = Path(survey_worker.__file__).with_name("configs.json")


def main() -> None:
    """Runs the harness."""
    harness = survey_worker.load_harness(sys.argv.pop(1))
    patches, plain = harness.cpu_patches, harness.build_vllm_config

    def prepared() -> None:
        patches()
        survey_worker.gpu_stand_ins()
        survey_worker.build(harness, read_configs(CONFIGS)[survey_worker.FIRST])

    def with_stand_ins(folder: str, *given: Any, **named: Any) -> Any:
        from vllm.model_executor.models.registry import _SPECULATIVE_DECODING_MODELS

        config = json.loads((Path(folder) / "config.json").read_text())
        survey_worker.stand_in(config)
        made = plain(folder, *given, **named)
        if (config.get("architectures") or [""])[0] in _SPECULATIVE_DECODING_MODELS:
            survey_worker.speculate(made[0])
        return made

    harness.cpu_patches = prepared
    harness.build_vllm_config = with_stand_ins
    harness.main()


if __name__ == "__main__":
    main()
