"""The packed attention against plain softmax."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ovis_engine.attention import PACKED_ATTENTION, choose_attention, packed_attention


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of the last queries over all keys, written out: (1, heads, q, d) -> (1, q, heads, d)."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * 0.3
    hidden = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1 + key.shape[2] - query.shape[2])
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value).transpose(1, 2)


class KeptCache:
    """Stands where the library's paged cache does: returns all keys and values of the packed sequences."""

    def __init__(self, key: Tensor, value: Tensor, ends: list[int]) -> None:
        self.key, self.value, self.ends = key, value, ends

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, kwargs: dict[str, Any]) -> Any:
        assert layer_idx == 0
        kwargs["cu_seq_lens_k"] = torch.tensor(self.ends, dtype=torch.int32)
        return self.key, self.value


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize(("num_queries", "num_keys"), [(7, 7), (1, 7), (3, 7), (1, 1)])
def test_one_sequence_equals_plain_softmax(key_heads: int, num_queries: int, num_keys: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, 4, num_queries, 8)
    key, value = torch.randn(2, 1, key_heads, num_keys, 8).unbind(0)
    found, _ = packed_attention(torch.nn.Identity(), query, key, value, None, scaling=0.3)
    assert torch.allclose(found, plain(query, key, value), atol=1e-5)


def test_packed_sequences_do_not_see_each_other() -> None:
    torch.manual_seed(1)
    lengths = [(5, 5), (1, 9), (3, 6), (1, 1)]
    query_ends, key_ends = [0], [0]
    for num_queries, num_keys in lengths:
        query_ends.append(query_ends[-1] + num_queries)
        key_ends.append(key_ends[-1] + num_keys)
    query = torch.randn(1, 4, query_ends[-1], 8)
    key, value = torch.randn(2, 1, 2, key_ends[-1], 8).unbind(0)
    layer: Any = SimpleNamespace(layer_idx=0)
    found, _ = packed_attention(
        layer,
        query,
        key[:, :, :1],
        value[:, :, :1],
        None,
        scaling=0.3,
        cache=KeptCache(key, value, key_ends),
        cu_seq_lens_q=torch.tensor(query_ends),
        cu_seq_lens_k={"full_attention": None},
    )
    for index in range(len(lengths)):
        queries, keys = slice(*query_ends[index : index + 2]), slice(*key_ends[index : index + 2])
        wanted = plain(query[:, :, queries], key[:, :, keys], value[:, :, keys])
        assert torch.allclose(found[:, queries], wanted, atol=1e-5)


def written_out(query: Tensor, key: Tensor, value: Tensor, softcap: float | None, window: int) -> Tensor:
    """As `plain`, one query at a time, with capped scores and only the newest keys."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    rows = []
    for index in range(query.shape[2]):
        last = key.shape[2] - query.shape[2] + index
        seen = slice(max(0, last - window + 1), last + 1)
        scores = query[:, :, [index]] @ key[:, :, seen].transpose(2, 3) * 0.3
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        rows.append(scores.softmax(-1) @ value[:, :, seen])
    return torch.cat(rows, 2).transpose(1, 2)


@pytest.mark.parametrize("softcap", [None, 0.8], ids=["no cap", "cap"])
@pytest.mark.parametrize("window", [None, 5, 40], ids=lambda window: f"window {window}")
@pytest.mark.parametrize(("num_queries", "num_keys"), [(7, 7), (1, 7), (3, 7), (1, 1), (300, 300), (260, 330)])
def test_softcaps_and_sliding_windows_equal_the_definition(
    softcap: float | None, window: int | None, num_queries: int, num_keys: int
) -> None:
    torch.manual_seed(2)
    query = torch.randn(1, 4, num_queries, 8) * 3
    key, value = torch.randn(2, 1, 2, num_keys, 8).unbind(0)
    found, _ = packed_attention(
        torch.nn.Identity(), query, key, value, None, scaling=0.3, softcap=softcap, sliding_window=window
    )
    assert torch.allclose(found, written_out(query, key, value, softcap, window or num_keys), atol=1e-5)


def test_a_padding_mask_is_refused() -> None:
    states = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="not supported"):
        packed_attention(torch.nn.Identity(), states, states, states, torch.ones(1, 2))


def test_the_cpu_gets_our_attention_and_cuda_never_an_unknown_one() -> None:
    assert choose_attention(torch.device("cpu"), torch.float32) == PACKED_ATTENTION
    assert choose_attention(torch.device("cuda"), torch.float32) == "sdpa"


def test_a_softcap_is_never_left_to_sdpa() -> None:
    assert choose_attention(torch.device("cuda"), torch.float32, softcap=True) == PACKED_ATTENTION
