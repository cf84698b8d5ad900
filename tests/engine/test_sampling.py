"""Sampling per request: ranges, distributions, seeds, penalties, log probabilities."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from ovis_engine import Engine, FieldOutOfRangeError, RepetitionRule, Request, RequestError, Sampling
from ovis_engine.row import Row
from ovis_engine.shaping import gumbel_noise, shape_logits
from tests.engine.conftest import SMALL, TINY, picture

#: Chi-square over its degrees of freedom that chance exceeds once in far more than a million times at 20 and more.
UNLIKELY = 4.0


def excess(counts: Counter[int], expected: dict[int, float]) -> float:
    """Chi-square per degree of freedom of counts against probabilities; rare outcomes are taken together."""
    total = sum(counts.values())
    assert set(counts) <= set(expected), "an outcome that has no probability"
    common = [token for token, share in expected.items() if share * total >= 5]
    cells = [(counts[token], expected[token] * total) for token in common]
    rest = total - sum(count for count, _ in cells), total - sum(wanted for _, wanted in cells)
    if rest[1] >= 5:
        cells.append(rest)
    return sum((count - wanted) ** 2 / wanted for count, wanted in cells) / (len(cells) - 1)


def some_logits(size: int = 60) -> Tensor:
    return torch.randn(1, size, generator=torch.Generator().manual_seed(7)) * 2


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.6),
        Sampling(temperature=1.5, top_k=20),
        Sampling(temperature=1.0, top_p=0.7),
        Sampling(temperature=1.3, top_p=0.8, top_k=30),
    ],
    ids=["plain", "cool", "top_k", "top_p", "both"],
)
def test_sampled_tokens_follow_the_distribution(sampling: Sampling) -> None:
    # Given the distribution as transformers' own warpers shape it
    logits = some_logits()
    shaped = logits / sampling.temperature
    nothing = torch.zeros(1, 0, dtype=torch.long)
    if sampling.top_k:
        shaped = TopKLogitsWarper(sampling.top_k)(nothing, shaped)
    if sampling.top_p < 1:
        shaped = TopPLogitsWarper(sampling.top_p)(nothing, shaped)
    probabilities = shaped.softmax(-1)[0]
    expected = {token: share for token, share in enumerate(probabilities.tolist()) if share > 0}
    # When 64 rows at a time sample from it
    counts: Counter[int] = Counter()
    for batch in range(50):
        rows = [
            (place, Row("r", [], max_new_tokens=1, sampling=sampling, seed=64 * batch + place)) for place in range(64)
        ]
        counts.update(shape_logits(logits.expand(64, -1), rows).argmax(-1).tolist())
    # Then their tokens do too
    assert excess(counts, expected) < UNLIKELY


def test_the_noise_of_one_seed_is_independent_over_positions() -> None:
    logits = some_logits()
    expected = dict(enumerate(logits.softmax(-1)[0].tolist()))
    drawn = [int((logits[0] + gumbel_noise(5, position, logits.shape[1])).argmax()) for position in range(3200)]
    assert excess(Counter(drawn), expected) < UNLIKELY
    pairs = Counter(first == second for first, second in pairwise(drawn))
    equal = sum(share**2 for share in expected.values())
    assert abs(pairs[True] / len(drawn) - equal) < 5 * math.sqrt(equal / len(drawn))


def test_a_small_top_p_keeps_one_token_and_a_wide_one_reaches_past_the_sorted_head() -> None:
    logits = torch.zeros(1, 5000)
    logits[0, 17] = 0.5
    only = Row("r", [], max_new_tokens=1, sampling=Sampling(temperature=1.0, top_p=1e-9))
    assert int(shape_logits(logits, [(0, only)]).argmax()) == 17
    wide = Row("r", [], max_new_tokens=1, sampling=Sampling(temperature=1.0, top_p=0.9))
    rising = torch.linspace(0, 0.01, 5000)[None]
    kept = torch.isfinite(shape_logits(rising, [(0, wide)])).sum()
    assert 4480 < int(kept) < 4510


def test_tiny_temperatures_are_greedy_and_never_overflow() -> None:
    logits = some_logits() * 100
    row = Row("r", [], max_new_tokens=1, sampling=Sampling(temperature=1e-30))
    scores = shape_logits(logits, [(0, row)])
    assert not scores.isnan().any()
    assert int(scores.argmax()) == int(logits.argmax())


def test_the_penalty_is_transformers_own_over_the_output_alone() -> None:
    logits = some_logits()
    said = [3, 5, 5, 40]
    row = Row("r", [1, 2], max_new_tokens=9, sampling=Sampling(repetition_penalty=1.3), token_ids=said)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([said]), logits.clone())
    assert torch.equal(shape_logits(logits, [(0, row)]), expected)


def test_greedy_rows_keep_their_exact_logits_beside_others() -> None:
    logits = some_logits().expand(3, -1).contiguous()
    row = Row("r", [], max_new_tokens=1, sampling=Sampling(temperature=1.0))
    scores = shape_logits(logits, [(1, row)])
    assert torch.equal(scores[[0, 2]], logits[[0, 2]])
    assert not torch.equal(scores[1], logits[1])


def test_first_tokens_of_the_engine_follow_the_model() -> None:
    request = Request("Say something.", max_new_tokens=1, ignore_eos=True, logprobs=5)
    sampling = Sampling(temperature=1.0, top_k=5)
    with Engine.from_pretrained(TINY, SMALL) as engine:
        (greedy,) = engine.submit(request).result(30).logprobs or ()
        shares = {token: math.exp(logprob) for token, logprob in greedy.top}
        futures = [
            engine.submit(replace(request, sampling=replace(sampling, seed=seed), request_id=str(seed)))
            for seed in range(600)
        ]
        counts = Counter(future.result(60).token_ids[0] for future in futures)
    total = sum(shares.values())
    assert excess(counts, {token: share / total for token, share in shares.items()}) < 2 * UNLIKELY


def test_a_seed_gives_the_same_text_alone_batched_and_after_preemption(engine: Engine) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, repetition_penalty=1.1)
    requests = [
        Request(
            f"Write about {index}.",
            images=(picture("tiny20.png"),) if index % 4 == 0 else (),
            max_new_tokens=60,
            ignore_eos=True,
            sampling=replace(sampling, seed=index),
            request_id=f"seeded-{index}",
        )
        for index in range(9)
    ]
    alone = [engine.submit(request).result(60).token_ids for request in requests]
    together = [engine.submit(request) for request in requests]
    assert [future.result(60).token_ids for future in together] == alone
    with Engine.from_pretrained(TINY, replace(SMALL, kv_cache_tokens=480, page_size=8)) as tight:
        squeezed = [tight.submit(request) for request in requests]
        assert [future.result(60).token_ids for future in squeezed] == alone
        assert tight.stats().preemptions > 0


def test_without_a_seed_texts_differ_and_the_completion_tells_the_seed(engine: Engine) -> None:
    request = Request("Go.", max_new_tokens=20, ignore_eos=True, sampling=Sampling(temperature=1.0))
    first = engine.submit(request).result(30)
    second = engine.submit(replace(request, request_id="again")).result(30)
    assert first.token_ids != second.token_ids
    assert first.seed is not None
    repeated = replace(request, sampling=Sampling(temperature=1.0, seed=first.seed), request_id="repeated")
    assert engine.submit(repeated).result(30).token_ids == first.token_ids


def test_greedy_is_the_default_and_has_no_seed(engine: Engine) -> None:
    """The fixture's generation_config.json asks for sampling and a penalty."""
    completions = [
        engine.submit(Request("Go.", max_new_tokens=12, request_id=f"g{index}")).result(30) for index in (0, 1)
    ]
    assert completions[0].token_ids == completions[1].token_ids
    assert completions[0].seed is None


def test_logprobs_are_the_models_own_and_match_the_tokens(engine: Engine) -> None:
    request = Request("Hi", max_new_tokens=15, ignore_eos=True, logprobs=3, request_id="noted")
    completion = engine.submit(request).result(30)
    assert completion.logprobs is not None
    assert [entry.token_id for entry in completion.logprobs] == list(completion.token_ids)
    for entry in completion.logprobs:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token_id, entry.logprob)
    sampled = replace(request, sampling=Sampling(temperature=2.0, seed=1), logprobs=0, request_id="hot")
    hot = engine.submit(sampled).result(30).logprobs
    assert hot is not None
    assert hot[0].top == ()
    assert all(entry.logprob < 0 for entry in hot)
    # Temperature does not colour them: the first token's share is that of the greedy run, if it was in its top.
    plain = engine.submit(replace(request, logprobs=20, max_new_tokens=1, request_id="wide")).result(30).logprobs
    assert plain is not None
    shares = dict(plain[0].top)
    assert hot[0].logprob == pytest.approx(shares.get(hot[0].token_id, hot[0].logprob), abs=1e-4)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request("x", max_new_tokens=0), "max_new_tokens"),
        (Request("x", sampling=Sampling(temperature=-0.1)), "temperature"),
        (Request("x", sampling=Sampling(temperature=11)), "temperature"),
        (Request("x", sampling=Sampling(temperature=math.nan)), "temperature"),
        (Request("x", sampling=Sampling(top_p=0.0)), "top_p"),
        (Request("x", sampling=Sampling(top_p=1.1)), "top_p"),
        (Request("x", sampling=Sampling(top_k=-1)), "top_k"),
        (Request("x", sampling=Sampling(repetition_penalty=0.0)), "repetition_penalty"),
        (Request("x", sampling=Sampling(repetition_penalty=math.inf)), "repetition_penalty"),
        (Request("x", sampling=Sampling(seed=-1)), "seed"),
        (Request("x", sampling=Sampling(seed=2**63)), "seed"),
        (Request("x", stop=("",)), "length of a stop string"),
        (Request("x", stop=("y" * 257,)), "length of a stop string"),
        (Request("x", stop=("y",) * 17), "number of stop strings"),
        (Request("x", logprobs=21), "logprobs"),
        (Request("x", deadline_s=0), "deadline_s"),
        (Request("x", deadline_s=math.nan), "deadline_s"),
        (Request("x", repetition=RepetitionRule(min_repeats=1)), "repetition.min_repeats"),
        (Request("x", repetition=RepetitionRule(max_period=5000)), "repetition.max_period"),
        (Request("x", repetition=RepetitionRule(min_repeats=2**62)), "repetition.min_repeats"),
        (Request("x", repetition=RepetitionRule(min_tokens=2**63)), "repetition.min_tokens"),
        (Request("x", repetition=RepetitionRule(min_tokens=9.0)), "repetition.min_tokens"),  # type: ignore[arg-type]
        (Request("x", max_new_tokens=2.5), "max_new_tokens"),  # type: ignore[arg-type]
        (Request("x", max_new_tokens=True), "max_new_tokens"),
        (Request("x", sampling=Sampling(temperature=1.0, top_k=2**63)), "top_k"),
        (Request("x", sampling=Sampling(temperature=1.0, top_k=40.0)), "top_k"),  # type: ignore[arg-type]
        (Request("x", sampling=Sampling(temperature="hot")), "temperature"),  # type: ignore[arg-type]
        (Request("x", sampling=Sampling(temperature=1.0, seed=1.0)), "seed"),  # type: ignore[arg-type]
        (Request("x", sampling=Sampling(top_p="all")), "top_p"),  # type: ignore[arg-type]
        (Request("x", logprobs=2.0), "logprobs"),  # type: ignore[arg-type]
        (Request("x", logprobs=True), "logprobs"),
        (Request("x", deadline_s="soon"), "deadline_s"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_out_of_range_are_refused_by_field_limit_and_value(
    engine: Engine, request_: Request, field: str
) -> None:
    with pytest.raises(FieldOutOfRangeError, match=field) as caught:
        engine.submit(request_)
    assert caught.value.field == field
    assert caught.value.limit in caught.value.message
    assert str(caught.value.value) in caught.value.message
    # Its id is free, and the engine alive.
    again = Request("x", max_new_tokens=1, request_id=request_.request_id)
    assert engine.submit(again).result(30).num_output_tokens == 1


def test_the_largest_values_are_taken(engine: Engine) -> None:
    request = Request(
        "x",
        (picture("tiny20.png"),),
        max_new_tokens=2,
        sampling=Sampling(temperature=1.0, top_k=2**31 - 1, seed=2**63 - 1),
        logprobs=20,
        repetition=RepetitionRule(max_period=4096, min_repeats=10**6, min_tokens=10**6),
    )
    assert engine.submit(request).result(30).num_output_tokens == 2


@pytest.mark.parametrize("stop", ["end", ("end", 5)], ids=["a lone string", "a number"])
def test_stop_strings_of_another_kind_are_refused(engine: Engine, stop: Any) -> None:
    with pytest.raises(RequestError, match="stop"):
        engine.submit(Request("x", stop=stop))
