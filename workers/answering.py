"""From a part's inputs to its answer: without the model where none is needed, twice where the first run is doubtful."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

import redis

from contract.catalogue import ModelCard
from contract.errors import CallerError
from contract.logs import get_logger
from contract.operations import OPERATIONS
from contract.results import Usage
from contract.task import TaskSpec
from ovis_engine import Completion, Request
from workers.checks import Finding, findings
from workers.deltas import DeltaWriter
from workers.forms import is_loose, schema_of, shape
from workers.generation import Generator, usage_of
from workers.inputs import PartInputs
from workers.leases import Lease
from workers.orientation import lies_sideways
from workers.questions import Manner, build_glance, build_request, hint_is_cut
from workers.readings import Reading
from workers.second_runs import is_better, other_manner
from workers.summaries import Summariser

log = get_logger(__name__)

#: Tokens of a glance at a page that was turned: two or three lines of print.
GLANCE_TOKENS = 48

#: Tiles of a glance's picture, the thumbnail not counted.
GLANCE_PARTITION = 4

#: A page is turned only where its tokens get likelier by this much on average (natural logarithm).
CLEARLY_LIKELIER = 0.2


@dataclass(frozen=True)
class _Run:
    """One run and what is to be said of it."""

    completion: Completion
    reading: Reading
    found: tuple[Finding, ...]
    manner: Manner


@dataclass(frozen=True)
class Answerer:
    """Answers parts with one engine. Any thread.

    Attributes:
        client: Through which streamed parts tell what they write; thread-safe.
    """

    client: redis.Redis
    generator: Generator
    card: ModelCard

    def answer(self, lease: Lease, inputs: PartInputs) -> Reading:
        """The answer to the lease's part.

        Raises:
            Stopped: The lease was stopped.
            FleetError: The engine refused, or ended.
        """
        spec = lease.attempt.spec
        without = answer_without_model(spec, inputs)
        if without is not None:
            return without
        fitted = Summariser(self.generator, self.card).fitted(lease, inputs)
        inputs = fitted.inputs
        first = self._run(lease, inputs, fitted.manner, "1")
        chosen, usage, said = first, inputs.counts + fitted.usage + first.reading.usage, list(fitted.warnings)
        if hint_is_cut(spec, inputs):
            said.append("hint_cut")
        second, spent = self._again(lease, inputs, first)
        if second is not None:
            said.append("second_run")
            read = ((run.found, run.reading.text) for run in (second, first))
            if is_better(*read, angle=second.manner.angle):
                chosen = second
                said += _changed(second.manner)
        return replace(chosen.reading, usage=usage + spent, warnings=(*chosen.found, *said))

    def _again(self, lease: Lease, inputs: PartInputs, first: _Run) -> tuple[_Run | None, Usage]:
        """A second run where one is worth it, and what it and finding that out took.

        What can't be done with the input a second time leaves the first answer. A streamed part's text has been read
        while it was written: it isn't taken back. A caller may want no second run, which costs as much as the first.
        """
        options = lease.attempt.spec.options
        if inputs.turned is None or options.stream or not options.second_run:
            return None, Usage()
        spent = Usage()
        try:
            angle, spent = self._best_angle(lease, inputs, first)
            second = self._second(lease, inputs, first, angle)
        except CallerError as exc:
            log.warning("second_run_failed", **lease.attempt.log_fields, code=exc.code)
            return None, spent
        if second is None:
            return None, spent
        log.info("second_run", **lease.attempt.log_fields, found=first.found, left=second.found, angle=angle)
        return second, spent + second.reading.usage

    def _run(self, lease: Lease, inputs: PartInputs, manner: Manner, name: str) -> _Run:
        spec = lease.attempt.spec
        request = build_request(spec, inputs, self.card, request_id=f"{lease.attempt.token}-{name}", manner=manner)
        completion = self._complete(request, lease)
        reason = completion.finish_reason
        assert reason != "canceled"
        assert reason != "deadline"
        inked = bool(inputs.images) and inputs.has_ink
        text, data, misshapen = shape(spec, completion.text)
        # A list of equal rows that comes to its end is no loop.
        held = schema_of(spec) is not None and reason == "stop"
        found = findings("" if held else text, reason, inked=inked and not held)
        reading = Reading(
            text=text,
            data=data,
            finish_reason=reason,
            usage=usage_of(completion),
            start_s=inputs.start_s,
            end_s=inputs.end_s,
            logprobs=None if spec.options.logprobs is None else self.generator.logprobs(completion),
        )
        return _Run(completion, reading, (*found, *misshapen), manner)

    def _complete(self, request: Request, lease: Lease) -> Completion:
        if not lease.attempt.spec.options.stream:
            return self.generator.run(request, lease)
        with DeltaWriter(self.client, lease.attempt.token) as writer:
            return self.generator.run(request, lease, writer)

    def _second(self, lease: Lease, inputs: PartInputs, first: _Run, angle: int) -> _Run | None:
        """Run once more in another manner; None where there is nothing to try."""
        spec = lease.attempt.spec
        room = self.generator.engine.max_context_tokens - first.completion.num_prompt_tokens
        limit = spec.max_new_tokens(self.card)
        manner = other_manner(spec.options, first.found, angle=angle, limit=limit, room=room, loose=is_loose(spec))
        if manner == Manner():
            return None
        if angle and inputs.turned is not None:
            turned = inputs.turned(angle, self.card.max_partition)
            inputs = replace(inputs, images=(turned,))
        return self._run(lease, inputs, manner, "2")

    def _best_angle(self, lease: Lease, inputs: PartInputs, first: _Run) -> tuple[int, Usage]:
        """How far the one picture should be turned, and what finding that out took.

        Only for reading, and only where the first run is doubtful or the lines run from top to bottom.
        """
        spec = lease.attempt.spec
        sideways = lies_sideways(inputs.images[0])
        doubtful = bool({"empty", "repetition"} & set(first.found))
        if not (OPERATIONS[spec.operation].reads and inputs.turned and (sideways or doubtful)):
            return 0, Usage()
        angles = (0, 90, 270) if sideways else (0, 180)
        glances = []
        for angle in angles:
            looked = replace(inputs, images=(inputs.turned(angle, GLANCE_PARTITION),))
            name = f"{lease.attempt.token}-look-{angle}"
            glances.append(build_glance(spec, looked, self.card, num_tokens=GLANCE_TOKENS, request_id=name))
        completions = self.generator.run_all(glances, lease)
        likely = dict(zip(angles, map(_likelihood, completions), strict=True))
        best = max(angles, key=likely.__getitem__)
        spent = sum(map(usage_of, completions), Usage())
        return (best if likely[best] > likely[0] + CLEARLY_LIKELIER else 0), spent


def answer_without_model(spec: TaskSpec, inputs: PartInputs) -> Reading | None:
    """The answer where no model is needed: a page's own text, or nothing from a blank page. None where one is."""
    if spec.options.text_layer == "only" and inputs.text:
        return Reading(text=inputs.text, source="text_layer", usage=inputs.counts)
    if inputs.images and not inputs.has_ink and OPERATIONS[spec.operation].reads:
        return Reading(text="", source="blank", usage=inputs.counts)
    return None


def _changed(manner: Manner) -> list[str]:
    """The words for what of a second run's manner a caller should know."""
    turned = [f"rotated_{manner.angle}"] if manner.angle else []
    return [*turned, "schema_tightened"] if manner.tight else turned


def _likelihood(completion: Completion) -> float:
    """Mean log probability of the tokens; saying nothing is the worst."""
    if not completion.logprobs or not completion.text.strip():
        return float("-inf")
    return statistics.fmean(entry.logprob for entry in completion.logprobs)
