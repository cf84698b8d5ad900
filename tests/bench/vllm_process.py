"""vLLM as a contestant: a process in its own environment that answers workloads on demand."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.peers import peer_python
from tests.bench.workload import BenchRequest

#: Marks the peer's lines meant for us among vLLM's own.
RESULT = "RESULT "

#: The chat format of the model; vLLM gets finished prompts.
PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\n{text}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


class Vllm:
    """vLLM's CPU build, eager or compiled, with its default scheduling."""

    def __init__(self, checkpoint: Path, dtype: str, mode: str) -> None:
        """Names what `__enter__` starts."""
        self._command = [
            str(peer_python("vllm")),
            str(Path(__file__).with_name("vllm_peer.py")),
            str(checkpoint),
            dtype,
            mode,
        ]
        self._pictures = tempfile.TemporaryDirectory(prefix="ovis-bench-")
        (core,) = os.sched_getaffinity(0)
        self._environment = os.environ | {
            "VLLM_CPU_OMP_THREADS_BIND": str(core),
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def __enter__(self) -> Self:
        log = Path(self._pictures.name, "vllm.log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._pictures.cleanup()

    def run(self, requests: Sequence[BenchRequest]) -> list[list[int]]:
        """Generates every request's tokens; opening the picture files is vLLM's part as tiling is ours."""
        rows = []
        for index, request in enumerate(requests):
            file = Path(self._pictures.name, f"{index}.bmp")
            request.picture.save(file)
            rows.append([str(file), PROMPT.format(text=request.prompt), request.output_tokens])
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"requests": rows}) + "\n")
        self._process.stdin.flush()
        tokens: list[list[int]] = self._read()["tokens"]
        return tokens

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(RESULT):
                answer: dict[str, Any] = json.loads(line.removeprefix(RESULT))
                return answer
        log = Path(self._pictures.name, "vllm.log").read_text(encoding="utf-8")
        raise RuntimeError(f"vLLM ended:\n{log[-4000:]}")
