"""Runs in vLLM's own environment: answers one workload per line of standard input.

    python vllm_peer.py CHECKPOINT DTYPE eager|compiled

Each input line is JSON ``{"requests": [[picture file, prompt text, output tokens], ...]}``; each output line that
starts with ``RESULT`` is JSON ``{"tokens": [[id, ...], ...]}``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from PIL import Image
from vllm import LLM, SamplingParams

#: Marks the lines meant for the bench among vLLM's own.
RESULT = "RESULT "


def main(checkpoint: str, dtype: str, mode: str) -> None:
    """Loads the model, then answers until standard input ends."""
    model = LLM(
        model=checkpoint,
        tokenizer=checkpoint,
        hf_overrides={"architectures": ["Ovis"]},
        dtype=dtype,
        max_model_len=4096,
        enforce_eager=mode == "eager",
        limit_mm_per_prompt={"image": 1},
        generation_config="vllm",
        disable_log_stats=True,
    )
    print(f"{RESULT}{json.dumps({'ready': True})}", flush=True)
    for line in sys.stdin:
        print(f"{RESULT}{json.dumps(_answer(model, json.loads(line)['requests']))}", flush=True)


def _answer(model: LLM, requests: list[tuple[str, str, int]]) -> dict[str, Any]:
    prompts = []
    for file, text, _ in requests:
        with Image.open(file) as picture:
            prompts.append({"prompt": text, "multi_modal_data": {"image": picture.convert("RGB")}})
    parameters = [
        SamplingParams(temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False)
        for _, _, tokens in requests
    ]
    outputs = model.generate(prompts, parameters, use_tqdm=False)
    return {"tokens": [list(output.outputs[0].token_ids) for output in outputs]}


if __name__ == "__main__":
    main(*sys.argv[1:])
