"""Attention by plain products and over several rows at once, against SDPA."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ovis_engine import written_attention
from ovis_engine.decoding_rows import group_rows
from ovis_engine.written_attention import attend_causally, attend_fully, products_pay


def states(heads: int, tokens: int, *, count: int = 1, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(count, heads, tokens, 32, generator=torch.Generator().manual_seed(heads * tokens)).to(dtype)


def test_float32_stays_with_sdpa() -> None:
    assert not products_pay(states(2, 64, dtype=torch.float32))


@pytest.mark.parametrize(("num_queries", "num_keys"), [(32, 32), (40, 300), (300, 300), (257, 1000), (8, 100), (1, 5)])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("portion", [2**12, 2**19], ids=["many blocks", "few blocks"])
def test_causal_products_give_what_sdpa_gives(
    monkeypatch: pytest.MonkeyPatch, num_queries: int, num_keys: int, heads: int, key_heads: int, portion: int
) -> None:
    monkeypatch.setattr(written_attention, "PORTION", portion)
    query, key, value = states(heads, num_queries), states(key_heads, num_keys), states(key_heads, num_keys + 1)
    value = value[:, :, 1:]
    visible = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    expected = scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=visible, scale=0.2, enable_gqa=True
    )
    found = attend_causally(*(each[0].transpose(0, 1) for each in (query, key, value)), 0.2)
    assert found.shape == (num_queries, heads * 32)
    by_head = found.float().unflatten(1, (heads, 32)).transpose(0, 1)
    torch.testing.assert_close(by_head.unsqueeze(0), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_full_attention_gives_what_sdpa_gives(dtype: torch.dtype) -> None:
    query, key, value = (states(3, tokens, count=2, dtype=dtype) for tokens in (64, 64, 64))
    expected = scaled_dot_product_attention(query.float(), key.float(), value.float())
    torch.testing.assert_close(attend_fully(query, key, value).float(), expected, atol=0.03, rtol=0.03)


def test_full_attention_can_be_trained() -> None:
    inputs = [states(3, 64, count=2).requires_grad_() for _ in range(3)]
    wide = [value.detach().float().requires_grad_() for value in inputs]
    attend_fully(*inputs).float().square().sum().backward()  # type: ignore[no-untyped-call]
    scaled_dot_product_attention(*wide).square().sum().backward()  # type: ignore[no-untyped-call]
    for narrow, value in zip(inputs, wide, strict=True):
        assert narrow.grad is not None
        assert value.grad is not None
        torch.testing.assert_close(narrow.grad.float(), value.grad, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("lengths", [[5, 7], [9, 9, 9], [64, 17, 900, 22, 700]], ids=str)
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_rows_together_give_what_each_gives_alone(lengths: list[int], key_heads: int) -> None:
    ends = list(accumulate(lengths, initial=0))
    spans = [slice(*pair) for pair in pairwise(ends)]
    index = torch.randperm(ends[-1] + 9, generator=torch.Generator().manual_seed(3))[: ends[-1]]
    query = states(4, len(lengths), dtype=torch.float32)[0].transpose(0, 1)
    key, value = states(key_heads, ends[-1] + 9, count=2, dtype=torch.float32).transpose(1, 2)
    groups = group_rows(range(len(lengths)), spans, index, torch.float32)
    assert sorted(int(place) for rows in groups for place in rows.places) == list(range(len(lengths)))
    for rows in groups:
        together = rows.attend(query[rows.places], key, value, 0.3)
        for place, found in zip(rows.places.tolist(), together, strict=True):
            mine = index[spans[place]]
            alone = scaled_dot_product_attention(
                query[place].view(1, 4, 1, 32),
                key[mine].transpose(0, 1).unsqueeze(0),
                value[mine].transpose(0, 1).unsqueeze(0),
                scale=0.3,
                enable_gqa=True,
            )
            torch.testing.assert_close(found, alone.flatten())


def test_rows_share_a_group_only_where_they_are_about_equally_long() -> None:
    lengths = [40, 1000, 50, 900]
    spans = [slice(*pair) for pair in pairwise(accumulate(lengths, initial=0))]
    groups = group_rows([5, 6, 7, 8], spans, torch.arange(sum(lengths)), torch.float32)
    assert [rows.places.tolist() for rows in groups] == [[6, 8], [5, 7]]
    assert [rows.hidden.shape[2] for rows in groups] == [1024, 64]


def test_what_lies_beyond_a_row_never_reaches_it() -> None:
    key = torch.full((80, 2, 8), torch.nan)
    key[:10] = 1.0
    (rows,) = group_rows([0], [slice(0, 10)], torch.arange(80), torch.float32)
    torch.testing.assert_close(rows.attend(torch.ones(1, 2, 8), key, key, 1.0), torch.ones(1, 16))
