"""What clips gave, made to fit one request: each caption cut, and where they are too many for that, in stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from contract.catalogue import ModelCard
from contract.results import Usage
from ovis_engine import Request
from workers.captions import Caption
from workers.generation import Generator, usage_of
from workers.inputs import PartInputs
from workers.leases import Lease
from workers.questions import MAX_CAPTION_CHARS, Manner, build_request

#: Captions are cut to this many characters at least, a sentence or two; rather than that they are summed up in groups.
LEAST_CAPTION_CHARS = 250

_SHORTEST = Manner(caption_chars=LEAST_CAPTION_CHARS)


@dataclass(frozen=True)
class Fitted:
    """A summary's inputs as they fit the model's context.

    Attributes:
        inputs: With fewer captions where they were summed up in stages.
        manner: How long a caption may be.
        usage: What the stages took.
        warnings: What callers should know of it.
    """

    inputs: PartInputs
    manner: Manner
    usage: Usage = field(default_factory=Usage)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summariser:
    """Fits captions into requests. Any thread."""

    generator: Generator
    card: ModelCard

    def fitted(self, lease: Lease, inputs: PartInputs) -> Fitted:
        """The inputs of the lease's part, unchanged where they have no captions.

        Each stage sums up neighbours with the summary's own prompt, and its answers are the next one's captions. What
        fits in no way is left as it is, for the engine to refuse.

        Raises:
            Stopped: The lease was stopped.
            FleetError: The engine refused, or ended.
        """
        usage, said = Usage(), dict[str, None]()
        while inputs.captions and not self._fits(lease, inputs.captions, _SHORTEST):
            groups = self._groups(lease, inputs.captions)
            if len(groups) == len(inputs.captions):
                break
            requests = [self._request(lease, group, _SHORTEST, f"stage-{n}") for n, group in enumerate(groups)]
            completions = self.generator.run_all(requests, lease)
            captions = (
                Caption(group[0].start_s, group[-1].end_s, completion.text)
                for group, completion in zip(groups, completions, strict=True)
            )
            inputs = replace(inputs, captions=tuple(captions))
            usage = sum(map(usage_of, completions), usage)
            said |= {"captions_cut": None, "summary_in_stages": None}
        manner = self._longest(lease, inputs.captions)
        if manner.caption_chars < MAX_CAPTION_CHARS:
            said["captions_cut"] = None
        return Fitted(inputs, manner, usage, tuple(said))

    def _groups(self, lease: Lease, captions: Sequence[Caption]) -> list[Sequence[Caption]]:
        """Neighbours that fit one request together, by halves; a caption alone where not even that one does."""
        if len(captions) == 1 or self._fits(lease, captions, _SHORTEST):
            return [captions]
        middle = len(captions) // 2
        return self._groups(lease, captions[:middle]) + self._groups(lease, captions[middle:])

    def _longest(self, lease: Lease, captions: Sequence[Caption]) -> Manner:
        """The manner that cuts the captions least, of those that fit."""
        manner = Manner()
        while manner.caption_chars // 2 >= LEAST_CAPTION_CHARS and not self._fits(lease, captions, manner):
            manner = replace(manner, caption_chars=manner.caption_chars // 2)
        return manner

    def _fits(self, lease: Lease, captions: Sequence[Caption], manner: Manner) -> bool:
        lease.check()
        return not captions or self.generator.fits(self._request(lease, captions, manner, "fits"))

    def _request(self, lease: Lease, captions: Sequence[Caption], manner: Manner, name: str) -> Request:
        request_id = f"{lease.attempt.token}-{name}"
        inputs = PartInputs(captions=tuple(captions))
        return build_request(lease.attempt.spec, inputs, self.card, request_id=request_id, manner=manner)
