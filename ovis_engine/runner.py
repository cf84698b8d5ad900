"""`OvisRunner`, for people who come from the original repository: pictures and text in a list, an answer out.

Ported from AIDC-AI/Ovis, branch v2.0, commit d1283c93 (``ovis/serve/runner.py``); it runs on the batching engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from ovis_engine.engine import Engine
from ovis_engine.errors import RequestError
from ovis_engine.partition import VIDEO_PARTITION, Partition, default_partition
from ovis_engine.prompt import CHAIN_OF_THOUGHT_SUFFIX, IMAGE_MARK, Turn
from ovis_engine.request import Completion, EngineConfig, Request
from ovis_engine.row import FinishReason
from ovis_engine.sampling import Sampling
from ovis_engine.tiling import TiledImage, tile_image

#: A picture or the path of one, a text, or None, which is skipped. A str is always text, as in the original.
RunnerInput = Image.Image | PathLike[str] | str | None


@dataclass(frozen=True)
class RunnerOptions:
    """How a runner generates.

    Attributes:
        max_new_tokens: Most tokens to generate, at least 1.
        sampling: How tokens are chosen; greedy by default.
        max_partition: Most cuts per picture; None takes the reference's 9 for one picture, 4 for several.
        chain_of_thought: Whether to ask for step-by-step reasoning.
        allow_smaller_partition: Whether pictures may be cut more coarsely where the request would not fit; else it is
            refused. The result says what was used.
    """

    max_new_tokens: int = 512
    sampling: Sampling = field(default_factory=Sampling)
    max_partition: int | None = None
    chain_of_thought: bool = False
    allow_smaller_partition: bool = False


@dataclass(frozen=True)
class RunnerResult:
    """An answer; the first four fields are those of the original's dictionary.

    Attributes:
        prompt: The whole prompt with control tokens, a picture as ``<image>``.
        output: Generated text.
        prompt_tokens: Length of the prompt as the original counts it: a tile is one token.
        total_tokens: prompt_tokens and the output's.
        num_prompt_tokens: Positions that the prompt took, every visual token counted.
        num_output_tokens: Tokens generated, end token included.
        finish_reason: As in `Completion`.
        partition: Cuts per picture that were asked for and used; None without pictures.
        completion: The engine's own account.
    """

    prompt: str
    output: str
    prompt_tokens: int
    total_tokens: int
    num_prompt_tokens: int
    num_output_tokens: int
    finish_reason: FinishReason
    partition: Partition | None
    completion: Completion


class OvisRunner:
    """Runs lists of pictures and text. Any thread; calls from several threads share the engine's batches."""

    def __init__(
        self, model: Engine | str | Path, options: RunnerOptions | None = None, config: EngineConfig | None = None
    ) -> None:
        """Loads a checkpoint, or takes an engine that somebody else closes.

        Args:
            model: A checkpoint directory or an engine.
            options: Defaults for all runs.
            config: Sizes of the engine, if it is made here.

        Raises:
            CheckpointError: If the checkpoint cannot be loaded.
            MemoryError: If the KV cache does not fit.
        """
        self._owned = None if isinstance(model, Engine) else Engine.from_pretrained(model, config)
        self.engine: Engine = model if isinstance(model, Engine) else self._owned  # type: ignore[assignment]
        self.options = options or RunnerOptions()

    def run(self, inputs: Sequence[RunnerInput], options: RunnerOptions | None = None) -> RunnerResult:
        """Answers one list of pictures and text.

        As in the original, each picture is followed by a line break, text stands where it is given, and a lone text
        before a lone picture moves behind it. ``<image>`` in a text is dropped.

        Raises:
            RequestError: If an input is of another type, or the request is malformed or does not fit.
            OSError: If a picture cannot be read.
            EngineError: If the engine ended.
        """
        return self.run_batch([inputs], options)[0]

    def run_batch(
        self, batch: Sequence[Sequence[RunnerInput]], options: RunnerOptions | None = None
    ) -> list[RunnerResult]:
        """Answers several lists together; results in their order. Raises as `run`, before anything is generated."""
        chosen = options or self.options
        return self._answer([self._request(inputs, chosen) for inputs in batch])

    def run_video(self, frames: Sequence[Image.Image], text: str, options: RunnerOptions | None = None) -> RunnerResult:
        """Answers a text about the frames of a clip, in order; each is one tile unless max_partition says else.

        Raises:
            RequestError: As `run`.
            EngineError: If the engine ended.
        """
        chosen = options or self.options
        chosen = replace(chosen, max_partition=chosen.max_partition or VIDEO_PARTITION)
        return self.run([*frames, text], chosen)

    def close(self) -> None:
        """Closes the engine, if this runner made it."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, inputs: Sequence[RunnerInput], options: RunnerOptions) -> Request:
        pieces = _in_order([_read(item) for item in inputs if item is not None])
        num_pictures = sum(not isinstance(piece, str) for piece in pieces)
        asked = options.max_partition or default_partition(num_pictures)
        request = Request(
            turns=(self._turn(pieces, asked, options),),
            max_new_tokens=options.max_new_tokens,
            sampling=options.sampling,
            partition=Partition(asked, asked) if num_pictures else None,
        )
        if not num_pictures or not options.allow_smaller_partition:
            return request
        used = self.engine.largest_partition(request, asked) or 1
        if used == asked:
            return request
        return replace(request, turns=(self._turn(pieces, used, options),), partition=Partition(asked, used))

    def _turn(self, pieces: Sequence[Image.Image | str], max_partition: int, options: RunnerOptions) -> Turn:
        parts: list[str | TiledImage] = []
        for piece in pieces:
            if isinstance(piece, str):
                parts.append(piece.replace(IMAGE_MARK, ""))
            else:
                parts += [tile_image(piece, side=self.engine.side, max_partition=max_partition), "\n"]
        if options.chain_of_thought:
            parts.append(CHAIN_OF_THOUGHT_SUFFIX)
        return Turn("user", tuple(parts))

    def _answer(self, requests: Sequence[Request]) -> list[RunnerResult]:
        for request in requests:
            self.engine.check(request)
        futures: list[Future[Completion]] = [self.engine.submit(request) for request in requests]
        return [self._result(request, future.result()) for request, future in zip(requests, futures, strict=True)]

    def _result(self, request: Request, completion: Completion) -> RunnerResult:
        layout = self.engine.prompter.encode(request.turns)
        return RunnerResult(
            prompt=self.engine.prompter.text(request.turns),
            output=completion.text,
            prompt_tokens=len(layout.token_ids),
            total_tokens=len(layout.token_ids) + completion.num_output_tokens,
            num_prompt_tokens=completion.num_prompt_tokens,
            num_output_tokens=completion.num_output_tokens,
            finish_reason=completion.finish_reason,
            partition=completion.partition,
            completion=completion,
        )


def _read(item: Image.Image | PathLike[str] | str) -> Image.Image | str:
    if isinstance(item, str | Image.Image):
        return item
    if isinstance(item, PathLike):
        with Image.open(item) as image:
            image.load()
            return image
    raise RequestError(f"an input must be a picture, the path of one, or text, not {type(item).__name__}")


def _in_order(pieces: list[Image.Image | str]) -> list[Image.Image | str]:
    """Puts a lone picture before a lone text, as the models were trained."""
    if len(pieces) == 2 and isinstance(pieces[0], str) and not isinstance(pieces[1], str):
        return pieces[::-1]
    return pieces
