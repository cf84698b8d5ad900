"""From logits to scores whose argmax is the next token: penalties, constraints, temperature, filters and chance.

Order: repetition penalty, constraint, temperature, top_k, top_p, as transformers' generate() has it. A sampled row gets
Gumbel noise, so that the argmax of its scores follows its distribution. The noise is a function of seed, position in
the output and token id alone: batching and preemption do not change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ovis_engine.errors import ConstraintFailedError
from ovis_engine.row import Row, TokenLogprob

#: Tokens that are sorted first; a top_p that reaches beyond them sorts the vocabulary.
HEAD_TOKENS = 1024

#: Rows of a step that are not plain, each with its place in the step's logits.
PlacedRows = Sequence[tuple[int, Row]]


def shape_logits(logits: Tensor, rows: PlacedRows) -> Tensor:
    """Shapes the logits of some rows and notes their log probabilities. Loop thread.

    Args:
        logits: (rows, vocabulary) float32 of a whole step; not changed.
        rows: The rows to shape; other rows' scores stay exactly as they are.

    Returns:
        (rows, vocabulary) float32 scores.
    """
    scores = logits.clone()
    for place, row in rows:
        _penalize(scores[place], row)
    _constrain(scores, [(place, row) for place, row in rows if row.grammar is not None])
    sampled = [(place, row) for place, row in rows if not row.sampling.is_greedy]
    if sampled:
        places = torch.tensor([place for place, _ in sampled], device=scores.device)
        scores[places] = _sample(scores[places], [row for _, row in sampled])
    _note_logprobs(logits, scores, [(place, row) for place, row in rows if row.num_logprobs is not None])
    return scores


def gumbel_noise(seed: int, position: int, size: int) -> Tensor:
    """Gumbel noise (size,) float32 on the CPU for one token choice, a pure function of its arguments."""
    generator = np.random.Generator(np.random.Philox(key=[seed, position]))
    exponential = generator.standard_exponential(size, dtype=np.float32)
    # Never 0, whose logarithm would turn a forbidden token's -inf into NaN.
    return torch.from_numpy(-np.log(np.maximum(exponential, np.finfo(np.float32).tiny)))


def _penalize(scores: Tensor, row: Row) -> None:
    """Applies the repetition penalty to one row (vocabulary,), in place."""
    penalty = row.sampling.repetition_penalty
    if penalty == 1.0 or not row.token_ids:
        return
    said = torch.tensor(sorted(set(row.token_ids)), device=scores.device)
    values = scores[said]
    scores[said] = torch.where(values > 0, values / penalty, values * penalty)


def _constrain(scores: Tensor, rows: PlacedRows) -> None:
    """Sets the scores of tokens that grammars forbid to -inf, in place. A grammar that gives up ends its row."""
    vocabulary = scores.shape[-1]
    for place, row in rows:
        assert row.grammar is not None
        try:
            bits = row.grammar.allowed()
        except ConstraintFailedError as exc:
            row.fault = exc
            continue
        allowed = np.unpackbits(bits, bitorder="little")[:vocabulary]
        forbidden = torch.from_numpy(allowed == 0).to(scores.device)
        scores[place, : len(forbidden)].masked_fill_(forbidden, -torch.inf)
        scores[place, len(forbidden) :] = -torch.inf


def _sample(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Scores (rows, vocabulary) of sampled rows to noisy log probabilities."""
    temperature = torch.tensor([[row.sampling.temperature] for row in rows], device=scores.device)
    # The largest becomes 0 first, so that a tiny temperature cannot overflow.
    scaled = (scores - scores.amax(-1, keepdim=True)) / temperature
    if any(row.sampling.top_k or row.sampling.top_p < 1.0 for row in rows):
        scaled = _filter(scaled, rows)
    noise = torch.stack([gumbel_noise(row.seed, len(row.token_ids), scores.shape[-1]) for row in rows])
    return scaled + noise.to(scores.device)


def _filter(scaled: Tensor, rows: Sequence[Row]) -> Tensor:
    """Applies each row's top_k, then its top_p; ties with the last token kept are kept."""
    vocabulary = scaled.shape[-1]
    widest = max(HEAD_TOKENS, *(row.sampling.top_k for row in rows))
    head = scaled.topk(min(widest, vocabulary), dim=-1).values  # (rows, head), falling
    scaled, head = _keep_top_k(scaled, head, [row.sampling.top_k for row in rows])
    wanted = torch.tensor([[row.sampling.top_p] for row in rows], device=scaled.device)
    if bool((wanted >= 1.0).all()):
        return scaled
    total = scaled.logsumexp(-1, keepdim=True)
    if bool((((head - total).exp().sum(-1, keepdim=True) < wanted) & (wanted < 1.0)).any()):
        head = scaled.sort(dim=-1, descending=True).values
    reached = (head - total).exp().cumsum(-1)
    last = (reached < wanted).sum(-1, keepdim=True).clamp(max=head.shape[-1] - 1)
    limit = torch.where(wanted < 1.0, head.gather(-1, last), -torch.inf)
    return scaled.masked_fill(scaled < limit, -torch.inf)


def _keep_top_k(scaled: Tensor, head: Tensor, top_k: Sequence[int]) -> tuple[Tensor, Tensor]:
    kept = torch.tensor([[k] for k in top_k], device=scaled.device)
    last = (kept - 1).clamp(0, head.shape[-1] - 1)
    limit = torch.where(kept > 0, head.gather(-1, last), -torch.inf)
    return scaled.masked_fill(scaled < limit, -torch.inf), head.masked_fill(head < limit, -torch.inf)


def _note_logprobs(logits: Tensor, scores: Tensor, rows: PlacedRows) -> None:
    if not rows:
        return
    # The same argmax as the library takes afterwards, over the same tensor.
    chosen = scores.argmax(-1)
    for place, row in rows:
        assert row.num_logprobs is not None
        logprobs = logits[place].log_softmax(-1)
        token_id = int(chosen[place])
        top = logprobs.topk(row.num_logprobs)
        pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        row.logprobs.append(TokenLogprob(token_id, float(logprobs[token_id]), pairs))
