"""What goes into the engine and what comes out."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ovis_engine.constraint import Constraint
from ovis_engine.errors import FieldOutOfRangeError, RequestError
from ovis_engine.partition import Partition
from ovis_engine.prompt import Turn, image_turn, video_turn
from ovis_engine.repetition import RepetitionRule
from ovis_engine.row import FinishReason, TokenLogprob
from ovis_engine.sampling import Sampling, check_range, check_whole, is_number, shown
from ovis_engine.tiling import TiledImage

#: Most stop strings of a request, and most characters of one: each is searched for at every token.
MAX_STOPS = 16
MAX_STOP_CHARS = 256
#: Most alternatives noted per output token.
MAX_LOGPROBS = 20


@dataclass(frozen=True)
class Request:
    """One sequence to generate. Text is never searched for picture marks: pictures are values.

    Attributes:
        prompt: The user's text. The engine puts the pictures before it, as the models were trained.
        images: Tiled pictures of the prompt, in order.
        system: Replaces the default system message.
        turns: A whole conversation instead of the three above, for history, video frames or pictures elsewhere.
        max_new_tokens: Most tokens to generate, at least 1.
        ignore_eos: Whether to go on to max_new_tokens past end tokens and repetition (benchmarks, parity). A constraint
            that is fulfilled ends the output all the same.
        sampling: How tokens are chosen; greedy by default.
        stop: Up to 16 strings of up to 256 characters; the text ends before the one that is complete first.
        logprobs: Number of most likely tokens to report per output token, 0 to 20; None reports nothing.
        constraint: What the output must match.
        repetition: When the output counts as endless and is stopped; None never stops it.
        deadline_s: Seconds from submit, above 0, after which the request ends with whatever there is; None waits.
        partition: How finely the pictures were tiled, where the caller keeps account of it; the completion repeats it.
        request_id: Unique among the requests in the engine.
    """

    prompt: str = ""
    images: tuple[TiledImage, ...] = ()
    system: str | None = None
    turns: tuple[Turn, ...] = ()
    max_new_tokens: int = 1024
    ignore_eos: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None
    repetition: RepetitionRule | None = field(default_factory=RepetitionRule)
    deadline_s: float | None = None
    partition: Partition | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def video(
        cls, prompt: str, frames: Sequence[TiledImage], *, max_new_tokens: int = 1024, request_id: str | None = None
    ) -> Request:
        """A request about the frames of a clip, in order; each is usually one tile."""
        turns = (video_turn(prompt, frames),)
        return cls(turns=turns, max_new_tokens=max_new_tokens, request_id=request_id or uuid.uuid4().hex)

    def conversation(self) -> tuple[Turn, ...]:
        """The request as turns.

        Raises:
            RequestError: If both forms are used at once.
        """
        if not self.turns:
            head = () if self.system is None else (Turn("system", (self.system,)),)
            return (*head, image_turn(self.prompt, self.images))
        if self.prompt or self.images or self.system is not None:
            raise RequestError("give either turns or prompt, images and system, not both")
        return self.turns

    def validate(self) -> None:
        """Checks the ranges of all fields but the pictures and the constraint.

        Raises:
            FieldOutOfRangeError: If a field is outside its range; the message says which.
        """
        check_whole("max_new_tokens", self.max_new_tokens, 1)
        self.sampling.validate()
        self._check_stops()
        if self.logprobs is not None:
            check_whole("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.repetition is not None:
            self.repetition.validate()
        if self.deadline_s is not None and not (is_number(self.deadline_s) and self.deadline_s > 0):
            raise FieldOutOfRangeError("deadline_s", "above 0", shown(self.deadline_s))

    def _check_stops(self) -> None:
        # A lone string would be taken for its letters.
        if isinstance(self.stop, str) or not all(isinstance(stop, str) for stop in self.stop):
            raise RequestError("stop must be a tuple of strings")
        check_range("number of stop strings", len(self.stop), 0, MAX_STOPS)
        for stop in self.stop:
            check_range("length of a stop string", len(stop), 1, MAX_STOP_CHARS)


@dataclass(frozen=True)
class Completion:
    """What became of a request.

    Attributes:
        request_id: The request's id.
        text: Generated text without special tokens, up to the first stop string; whatever there was if canceled.
        token_ids: Generated ids, without the end token that ended it; those of a stop string are among them.
        finish_reason: ``stop`` at an end token, at a stop string, or where a constraint allows nothing more; ``length``
            at max_new_tokens; ``repetition`` when the output repeats itself; ``deadline`` or ``canceled`` from outside.
        num_prompt_tokens: Positions of the prompt, visual and indicator tokens included.
        num_visual_tokens: Those of them that tiles took (indicators not counted).
        num_output_tokens: Tokens generated, end token included.
        num_tiles: Tiles over all pictures.
        engine_s: Seconds from submit to end.
        logprobs: One entry per id in token_ids, if the request asked for them.
        seed: Seed of a sampled request, given or drawn; None if greedy.
        partition: The request's.
    """

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_visual_tokens: int
    num_output_tokens: int
    num_tiles: int
    engine_s: float
    logprobs: tuple[TokenLogprob, ...] | None = None
    seed: int | None = None
    partition: Partition | None = None


@dataclass(frozen=True)
class EngineConfig:
    """Sizes of an engine.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N`` (CUDA has not been run by this project).
        dtype: Dtype of weights, activations and KV cache.
        max_running_requests: Most sequences decoded together.
        kv_cache_tokens: KV cache capacity in tokens, over all sequences; rounded up to whole pages.
        page_size: Tokens per KV cache page, at least 4; whole pages of equal prompts are shared.
        max_batch_tokens: Most tokens of one step; longer prompts are prefilled in chunks.
        long_prompt_tokens: Prompts longer than this are prefilled in smaller chunks while rows decode.
        chunk_tokens: Size of these chunks; None means 16 on a CPU and max_batch_tokens on a GPU.
        kept_keys_bytes: On a CPU, most memory for copies of the decoding rows' keys and values side by side; rows that
            don't fit are read from the pages, which takes longer the larger the model. At least 0.
        visual_pool_rows: Visual tokens kept on the device, over all pictures; rounded down to whole tiles.
        vision_batch_tiles: Most tiles per run of the vision tower; None means 8 on a GPU and 1 on a CPU, where
            tower and decode loop take turns and more tiles at once are no faster.
        num_threads: Threads per CPU operation, set for the whole process; None leaves torch's setting.
    """

    device: str = "cpu"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    max_running_requests: int = 16
    kv_cache_tokens: int = 32768
    page_size: int = 32
    max_batch_tokens: int = 2048
    long_prompt_tokens: int = 512
    chunk_tokens: int | None = None
    kept_keys_bytes: int = 256 * 2**20
    visual_pool_rows: int = 65536
    vision_batch_tiles: int | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        sizes = {
            "max_running_requests": (self.max_running_requests, 1),
            "kv_cache_tokens": (self.kv_cache_tokens, 1),
            "page_size": (self.page_size, 4),
            "max_batch_tokens": (self.max_batch_tokens, 1),
            "long_prompt_tokens": (self.long_prompt_tokens, 1),
            "chunk_tokens": (1 if self.chunk_tokens is None else self.chunk_tokens, 1),
            "kept_keys_bytes": (self.kept_keys_bytes, 0),
            "visual_pool_rows": (self.visual_pool_rows, 1),
            "vision_batch_tiles": (1 if self.vision_batch_tiles is None else self.vision_batch_tiles, 1),
            "num_threads": (1 if self.num_threads is None else self.num_threads, 1),
        }
        for name, (value, least) in sizes.items():
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype must be bfloat16 or float32, not {self.dtype}")


@dataclass(frozen=True)
class EngineStats:
    """A look at the engine. Steps, preemptions, output tokens and encoded tiles only grow.

    Attributes:
        waiting: Requests submitted but not yet in the decode loop.
        running: Sequences in the decode loop.
        steps: Decode-loop steps since the start.
        last_step_rows: Sequences that shared the latest step.
        preemptions: Times a sequence gave up its KV cache to others and was queued again.
        output_tokens: Tokens generated since the start.
        tokens_per_second: Tokens generated per second over the last ten seconds.
        encoded_tiles: Tiles run through the vision tower since the start (repeated tiles skip it).
        cache_tokens_used: KV cache tokens that running sequences hold.
        cache_tokens_total: KV cache tokens there are.
        pool_rows_used: Visual-pool rows that requests in the engine hold.
        pool_rows_total: Visual-pool rows there are.
    """

    waiting: int
    running: int
    steps: int
    last_step_rows: int
    preemptions: int
    output_tokens: int
    tokens_per_second: float
    encoded_tiles: int
    cache_tokens_used: int
    cache_tokens_total: int
    pool_rows_used: int
    pool_rows_total: int
