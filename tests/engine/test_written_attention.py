"""Attention by plain products and over several rows at once, against SDPA."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ovis_engine import written_attention
from ovis_engine.decoding_rows import Rows
from ovis_engine.written_attention import attend_causally, attend_fully, products_pay


def states(heads: int, tokens: int, *, count: int = 1, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(count, heads, tokens, 32, generator=torch.Generator().manual_seed(heads * tokens)).to(dtype)


def test_float32_stays_with_sdpa() -> None:
    assert not products_pay(states(2, 64, dtype=torch.float32))


@pytest.mark.parametrize(("num_queries", "num_keys"), [(32, 32), (40, 300), (300, 300), (257, 1000)])
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
    torch.testing.assert_close(attend_causally(query, key, value, 0.2).float(), expected, atol=0.03, rtol=0.03)


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


def batch_of(lengths: list[int], num_queries: list[int]) -> dict[str, object]:
    """A packed batch whose keys lie one after the other in the cache."""
    return {
        "read_index": [torch.arange(sum(lengths))],
        "cu_seq_lens_q": torch.tensor([0, *num_queries]).cumsum(0),
        "cu_seq_lens_k": {"full_attention": torch.tensor([0, *lengths]).cumsum(0)},
    }


@pytest.mark.parametrize("lengths", [[5, 7], [9, 9, 9], [20, 17, 30, 22]], ids=str)
@pytest.mark.parametrize("prefilled", [0, 6])
def test_rows_together_give_what_each_gives_alone(lengths: list[int], prefilled: int) -> None:
    count = len(lengths)
    tail = [prefilled] if prefilled else []
    batch = batch_of(lengths + tail, [1] * count + tail)
    key, value = states(2, sum(lengths) + prefilled, dtype=torch.float32), states(2, 99, dtype=torch.float32)
    query = states(4, count + prefilled, dtype=torch.float32)
    rows = Rows.among(batch, query)
    assert rows is not None
    (index,) = batch["read_index"]  # type: ignore[misc]
    assert rows.shift == len(index) - sum(lengths) - prefilled
    together = rows.attend(query[:, :, :count], key[:, :, index], value[:, :, index], None)
    start = 0
    for row, length in enumerate(lengths):
        keys = slice(start, start + length)
        alone = scaled_dot_product_attention(
            query[:, :, row].view(1, 2, 2, 32), key[:, :, keys], value[:, :, keys]
        ).view(1, 4, 32)
        torch.testing.assert_close(together[:, :, row], alone)
        start += length


@pytest.mark.parametrize(
    ("lengths", "num_queries"), [([9], [1]), ([9, 9], [2, 1]), ([5, 500], [1, 1])], ids=["one", "prefill", "uneven"]
)
def test_rows_for_which_it_does_not_pay_are_left_alone(lengths: list[int], num_queries: list[int]) -> None:
    batch = batch_of(lengths, num_queries)
    assert Rows.among(batch, states(4, sum(num_queries))) is None
    assert len(batch["read_index"][0]) == sum(lengths)  # type: ignore[index]
