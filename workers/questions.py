"""From a task and its inputs to what the engine is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from contract.catalogue import ModelCard
from contract.task import TaskSpec
from ovis_engine import Request, Sampling, TiledImage, Turn
from ovis_engine.prompt import CHAIN_OF_THOUGHT_SUFFIX, image_turn, video_turn
from workers.forms import constraint_of
from workers.inputs import PartInputs

#: Longest text of a page that goes along as a hint, in characters: a dense page.
MAX_HINT_CHARS = 8000

#: Longest caption of a clip in the summary's prompt, in characters, where there is room for it.
MAX_CAPTION_CHARS = 4000


@dataclass(frozen=True)
class Manner:
    """How a run differs from what the task says.

    Attributes:
        angle: How far the one picture is turned clockwise: 0, 90, 180 or 270 degrees.
        repetition_penalty: Instead of the task's.
        temperature: Instead of the task's; the same question gives the same answer even so.
        max_new_tokens: Instead of the task's.
        tight: Whether what a schema leaves open is bounded.
        caption_chars: Longest caption of a clip.
    """

    angle: int = 0
    repetition_penalty: float | None = None
    temperature: float | None = None
    max_new_tokens: int | None = None
    tight: bool = False
    caption_chars: int = MAX_CAPTION_CHARS


def build_request(
    spec: TaskSpec, inputs: PartInputs, card: ModelCard, *, request_id: str, manner: Manner | None = None
) -> Request:
    """What the engine is asked. ``manner.angle`` is the inputs' concern: they are turned already."""
    manner = manner or Manner()
    text = _text(spec, inputs, manner)
    past, images = _past(spec, inputs.images)
    turn = video_turn(text, images) if inputs.is_film else image_turn(text, images)
    head = () if spec.system is None else (Turn("system", (spec.system,)),)
    options = spec.options
    sampling = Sampling(
        temperature=manner.temperature or options.temperature or 0.0,
        top_p=1.0 if options.top_p is None else options.top_p,
        top_k=options.top_k or 0,
        repetition_penalty=manner.repetition_penalty or options.repetition_penalty or 1.0,
        seed=0 if manner.temperature and options.seed is None else options.seed,
    )
    return Request(
        turns=(*head, *past, turn),
        max_new_tokens=manner.max_new_tokens or spec.max_new_tokens(card),
        sampling=sampling,
        stop=options.stop or (),
        logprobs=options.logprobs,
        constraint=constraint_of(spec, tight=manner.tight),
        request_id=request_id,
    )


def build_glance(spec: TaskSpec, inputs: PartInputs, card: ModelCard, *, num_tokens: int, request_id: str) -> Request:
    """The same question, greedily and briefly, with the likelihood of each token: how well does it read?"""
    request = build_request(spec, inputs, card, request_id=request_id)
    return replace(request, max_new_tokens=num_tokens, sampling=Sampling(), stop=(), logprobs=0)


def hint_is_cut(spec: TaskSpec, inputs: PartInputs) -> bool:
    """Whether the page's own text goes along in part only."""
    return spec.hint_prompt is not None and len(inputs.text or "") > MAX_HINT_CHARS


def _past(spec: TaskSpec, images: tuple[TiledImage, ...]) -> tuple[list[Turn], tuple[TiledImage, ...]]:
    """What was said before the prompt, and the pictures that are left for it."""
    turns = []
    for past in spec.history:
        own, images = images[: past.images], images[past.images :]
        turns.append(image_turn(past.text, own) if past.role == "user" else Turn("assistant", (past.text,)))
    return turns, images


def _text(spec: TaskSpec, inputs: PartInputs, manner: Manner) -> str:
    if inputs.captions and spec.summary_prompt:
        lines = "\n".join(caption.line(manner.caption_chars) for caption in inputs.captions)
        text = spec.summary_prompt.replace("{captions}", lines, 1)
    else:
        text = spec.prompt
    if spec.hint_prompt and inputs.text:
        text += "\n" + spec.hint_prompt.replace("{text}", inputs.text[:MAX_HINT_CHARS], 1)
    return text + CHAIN_OF_THOUGHT_SUFFIX if spec.options.cot else text
