# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Attention heads as channels, in the ways that attention is written."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from _utils.nets import Net, assert_cuts, randomise, runs, trace
from mmdet_adasap.apis import apply_structure, prune_model
from mmdet_adasap.errors import StructureError
from mmdet_adasap.pruning import find_channels, indices_from_masks
from mmdet_adasap.pruning.analysis import attribute_counts
from mmdet_adasap.pruning.equivalence import difference, raw_outputs
from mmdet_adasap.pruning.rules.attention import find_head_axis

TOKENS = 5


class Attention(nn.Module):
    """Queries, keys and values by one layer, as mmpretrain writes it.

    Args:
        dims (int): Width of the embedding.
        num_heads (int): Number of heads.
        fused (bool): Whether the products are one operation.
        bias (str): What is added to the products: '', 'table' or 'mask'.
    """

    def __init__(
        self, dims: int = 12, num_heads: int = 4, fused: bool = True, bias: str = ''
    ) -> None:
        super().__init__()
        self.embed_dims, self.num_heads = dims, num_heads
        self.head_dims = dims // num_heads
        self.fused = fused
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        self.table = nn.Parameter(torch.zeros(9, num_heads)) if bias == 'table' else None
        self.mask = torch.ones(TOKENS, TOKENS).tril().log() if bias == 'mask' else None

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        shape = (n, tokens, 3, self.num_heads, self.head_dims)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        added = self.mask
        if self.table is not None:
            places = torch.arange(tokens)
            index = places[:, None] - places + tokens - 1
            added = self.table[index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1)
        if self.fused:
            if self.table is not None:
                added = added.unsqueeze(0)
            x = F.scaled_dot_product_attention(q, k, v, added)
        else:
            products = (q * self.head_dims**-0.5) @ k.transpose(-2, -1)
            x = (products if added is None else products + added).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(n, tokens, self.embed_dims))


class Separate(nn.Module):
    """Keys and values apart from queries, and a name of its own for the width."""

    def __init__(self, dims: int = 12, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.kv = nn.Linear(dims, dims), nn.Linear(dims, 2 * dims)
        self.proj = nn.Linear(dims, dims)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q = self.q(x).reshape(n, tokens, self.num_heads, -1).transpose(1, 2)
        kv = self.kv(x).reshape(n, tokens, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        products = q @ kv[0].transpose(-2, -1) * q.shape[-1] ** -0.5
        return self.proj((products.softmax(-1) @ kv[1]).transpose(1, 2).flatten(2))


class Unbound(Attention):
    """Queries, keys and values by unbind, from a view without heads."""

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        parts = self.qkv(x).reshape(n, tokens, 3, -1).unbind(2)
        q, k, v = (p.view(n, tokens, self.num_heads, -1).transpose(1, 2) for p in parts)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


def block(attention: nn.Module, dims: int = 12) -> Net:
    """A layer of a transformer over tokens of width 6, and a head."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.embed(x)
        x = x + net.attn(net.norm1(x))
        x = x + net.down(F.gelu(net.up(net.norm2(x))))
        return net.head(x.mean(1))

    return randomise(
        Net(
            run,
            embed=nn.Linear(6, dims),
            norm1=nn.LayerNorm(dims),
            attn=attention,
            norm2=nn.LayerNorm(dims),
            up=nn.Linear(dims, 20),
            down=nn.Linear(20, dims),
            head=nn.Linear(dims, 3),
        )
    )


def tokens(images: int = 2) -> Tensor:
    return torch.randn(images, TOKENS, 6, generator=torch.Generator().manual_seed(1))


def head_groups(channels) -> list:
    return [g for g in channels.groups if g.name.startswith('attn.')]


@pytest.mark.parametrize('images', [1, 2, 4])
@pytest.mark.parametrize(
    'attention',
    [
        Attention(),
        Attention(fused=False),
        Attention(bias='mask'),
        Attention(bias='mask', fused=False),
        Attention(bias='table'),
        Attention(bias='table', fused=False),
        Attention(num_heads=3),  # as many as queries, keys and values are
        Attention(dims=16, num_heads=4),  # as many as each is wide
        Attention(dims=16, num_heads=4, fused=False),
        Separate(),
        Unbound(),
        Unbound(num_heads=3),
        Unbound(dims=6, num_heads=2),
    ],
    ids=lambda a: a if isinstance(a, int) else f'{type(a).__name__}{list(vars(a).values())[-5:]}',
)
def test_heads_are_channels(attention, images):
    """Slim equals masked, also with as many images as heads."""
    x = tokens(images)
    model = block(copy.deepcopy(attention), attention.proj.in_features)
    channels = find_channels(model, runs(x))
    assert channels.excluded == {}
    assert [g.name for g in channels.groups][-1] == 'up'
    (heads,) = head_groups(channels)
    assert heads.size == attention.num_heads
    width = attention.proj.in_features // attention.num_heads
    of_heads = {m.name: m.index.shape[1] for m in heads.members}
    assert of_heads['attn.proj.weight'] == width
    if isinstance(attention, Attention):
        assert of_heads['attn.qkv.weight'] == of_heads['attn.qkv.bias'] == 3 * width
        # Each head has the same part of queries, keys and values, its own of all columns.
        (member,) = [m for m in heads.members if m.name == 'attn.qkv.weight']
        every = np.arange(3 * heads.size * width).reshape(3, heads.size, width)
        assert np.array_equal(np.sort(member.index, axis=1), np.hstack(list(every)))
    if getattr(attention, 'table', None) is not None:
        assert of_heads['attn.table'] == 1
    assert_cuts(model, x, channels)


def test_the_embedding_stays_whole():
    model = block(Attention())
    channels = find_channels(model, runs(tokens()))
    cut = {(m.name, m.axis) for g in channels.groups for m in g.members}
    assert ('embed.weight', 0) not in cut
    assert ('attn.qkv.weight', 1) not in cut
    assert ('attn.proj.weight', 0) not in cut
    assert cut >= {('up.weight', 0), ('down.weight', 1)}


@pytest.mark.parametrize('dims', [12, 16])
def test_heads_shrink_and_their_width_stays(dims):
    model = block(Attention(dims, 4), dims)
    channels = find_channels(model, runs(tokens()))
    kept = [np.arange(g.size) < (3 if g.name == 'attn.qkv' else g.size) for g in channels.groups]
    keep = indices_from_masks(model, channels.groups, kept)
    counts = attribute_counts(model, channels, keep, kept)
    assert counts['attn'] == {'num_heads': 3, 'embed_dims': dims // 4 * 3}


def test_one_head_stays():
    """Its width could shrink in shape, but the products are scaled by it."""
    model = block(Attention(num_heads=1))
    channels = find_channels(model, runs(tokens()))
    assert channels.excluded == {}
    assert [g.name for g in channels.groups] == ['up']
    assert 'the only head of attn' in channels.frozen
    assert_cuts(model, tokens(), channels)


def test_a_structure_rebuilds_the_heads():
    """From plain data, without a trace; and the slim model can be pruned again."""
    dense = block(Attention(24, 6), 24)
    slim, fresh = copy.deepcopy(dense), copy.deepcopy(dense)
    first = prune_model(slim, inputs=tokens(), target=dict(params=0.7), round_to=1)
    assert first['attrs']['attn']['num_heads'] < 6
    apply_structure(fresh, first)
    fresh.load_state_dict(slim.state_dict())
    assert difference(raw_outputs(fresh, runs(tokens())), raw_outputs(slim, runs(tokens()))) == 0
    second = prune_model(slim, inputs=tokens(), target=dict(params=0.4), round_to=1)
    assert second['attrs']['attn']['num_heads'] < first['attrs']['attn']['num_heads']
    assert second['reached']['params'] <= 0.4
    again, masked = copy.deepcopy(dense), copy.deepcopy(dense)
    apply_structure(again, second)
    apply_structure(masked, second, mask=True)
    # What is left has the weights that it had.
    assert difference(raw_outputs(again, runs(tokens())), raw_outputs(masked, runs(tokens()))) < (
        1e-5
    )


@pytest.mark.parametrize(
    ('attrs', 'message'),
    [
        (dict(num_heads=5), r'sets attn\.num_heads to 5, and the model has 4'),
        (dict(num_heads=0), r'sets attn\.num_heads to 0'),
        (dict(fused=1), r'names attn\.fused, which is not a number of channels'),
    ],
)
def test_heads_that_do_not_fit_are_refused(attrs, message):
    model = block(Attention())
    structure = prune_model(model, inputs=tokens(), target=dict(params=0.6), round_to=1)
    structure['attrs']['attn'] = attrs
    del structure['digest']
    with pytest.raises(StructureError, match=message):
        apply_structure(block(Attention()), structure)


def test_attention_in_train_mode_runs_after_the_cut():
    model = block(Attention())
    prune_model(model, inputs=tokens(), target=dict(params=0.6), round_to=1)
    model.train()(tokens()).sum().backward()
    assert model.attn.qkv.weight.grad.shape == model.attn.qkv.weight.shape


@pytest.mark.parametrize(
    ('sizes', 'axis'),
    [((3, 6, 64), 1), ((3, 3, 32), 1), ((3, 32, 32), 1), ((2, 8), 1), ((8, 2), 0), ((5, 7), None)],
)
def test_axis_of_heads(sizes, axis):
    heads = sizes[axis] if axis is not None else 6
    assert find_head_axis(heads, sizes) == axis


def test_a_number_of_heads_that_cannot_follow():
    """The layer that makes them is left whole, and named; what is around it is cut."""

    class Renamed(Attention):
        num_heads = property(lambda self: self.branches)

    attention = Attention()
    attention.branches = vars(attention).pop('num_heads')
    attention.__class__ = Renamed
    model = block(attention)
    channels = find_channels(model, runs(tokens()))
    assert list(channels.excluded) == ['attn.qkv']
    assert [g.name for g in channels.groups] == ['up']
    assert_cuts(model, tokens(), channels)


def test_the_embedding_is_viewed_before_the_heads():
    """An attribute of one value for two axes: it follows the one that shrinks."""

    class Viewed(Attention):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.view(-1, x.shape[-1])
            return super().forward(flat.view(x.shape))

    model = block(Viewed())
    model.norm1 = nn.Identity()  # only what follows keeps the embedding whole
    channels = find_channels(model, runs(tokens()))
    assert channels.excluded == {}
    assert [g.size for g in head_groups(channels)] == [4]
    assert_cuts(model, tokens(), channels)


@pytest.mark.parametrize('transposed', [False, True], ids=['width', 'tokens'])
def test_neither_width_nor_tokens_are_channels(transposed):
    """Products are scaled by the width; whatever lies along tokens is summed over."""

    def run(net: Net, x: Tensor) -> Tensor:
        made = [layer(x)[:, None] for layer in (net.q, net.k, net.v)]
        if transposed:
            made = [t.transpose(2, 3) for t in made]
        return F.scaled_dot_product_attention(*made)

    model = Net(run, q=nn.Linear(6, 8), k=nn.Linear(6, 8), v=nn.Linear(6, 8))
    channels = trace(randomise(model), tokens())
    assert channels.groups == []


class Added(nn.Module):
    """Heads of width 3 that are added up instead of joined."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.num_heads, self.shift = 4, shift
        self.q, self.k, self.v = (nn.Linear(6, 12) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], self.num_heads, 3)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.head(F.scaled_dot_product_attention(q, k, v + self.shift).sum(1))


@pytest.mark.parametrize(('shift', 'sizes'), [(0.0, [4]), (1.0, [])])
def test_what_a_masked_head_gives_follows_its_values(shift, sizes):
    model = randomise(Added(shift))
    channels = trace(model, tokens())
    assert [group.size for group in channels.groups] == sizes
    assert_cuts(model, tokens(), channels)
