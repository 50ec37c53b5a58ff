# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import numpy as np
import pytest

from mmdet_adasap.pruning.channel_ids import FROZEN, ChannelUnionFind, TensorDim


def brute_force(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    sets = [{i} for i in range(count)]
    for a, b in pairs:
        if sets[a] is not sets[b]:
            sets[a] |= sets[b]
            for i in sets[b]:
                sets[i] = sets[a]
    return [min(s) for s in sets]


@pytest.mark.parametrize('seed', range(20))
def test_solve_equals_union_find(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 200))
    union_find = ChannelUnionFind()
    union_find.nodes('w', 0, count - 1)
    pairs = []
    for _ in range(rng.integers(0, 12)):
        length = int(rng.integers(1, 20))
        left, right = rng.integers(0, count, (2, length))
        union_find.tie(left, right)
        pairs += zip(left.tolist(), right.tolist(), strict=True)
    assert union_find.solve().tolist() == brute_force(count, pairs)


def test_solve_follows_a_long_chain():
    union_find = ChannelUnionFind()
    nodes = union_find.nodes('w', 0, 1000)[::-1]
    union_find.tie(nodes[:-1], nodes[1:])
    assert set(union_find.solve()[1:].tolist()) == {1}


def test_nodes_are_made_once_and_located():
    union_find = ChannelUnionFind()
    first, second = union_find.nodes('a', 1, 3), union_find.nodes('b', 0, 2)
    assert union_find.nodes('a', 1, 3).tolist() == first.tolist() == [1, 2, 3]
    axis, index = union_find.locate(np.concatenate([second, first]))
    assert [union_find.dims[i] for i in axis] == [TensorDim('b', 0)] * 2 + [TensorDim('a', 1)] * 3
    assert index.tolist() == [0, 1, 0, 1, 2]
    assert len(union_find) == 6


def test_tie_broadcasts_and_freeze_says_why():
    union_find = ChannelUnionFind()
    a, b, c = (union_find.nodes(name, 0, 2) for name in 'abc')
    union_find.tie(a, b)
    union_find.freeze(a[:1], 'first reason')
    union_find.freeze(np.array([FROZEN, c[1]]), 'second reason')
    union_find.freeze(np.array([FROZEN]), 'nothing new')
    root = union_find.solve()
    assert root[a[0]] == root[b[0]] == root[c[1]] == FROZEN
    assert root[a[1]] == root[b[1]] != FROZEN
    assert union_find.reasons() == {
        'first reason': [TensorDim('a', 0)],
        'second reason': [TensorDim('c', 0)],
        'nothing new': [],
    }


def test_outputs():
    union_find = ChannelUnionFind()
    union_find.nodes('a', 0, 2)
    union_find.mark_output(union_find.nodes('b', 0, 2))
    assert union_find.outputs.tolist() == [False, False, False, True, True]
