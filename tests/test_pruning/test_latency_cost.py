# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
from torch import nn

from _utils.latency_formula import (
    REFERENCE_NS,
    X,
    formula_table,
    nanoseconds,
    net,
    table_content,
)
from _utils.nets import runs
from mmdet_adasap.errors import LatencyTableError, UnreachableTargetError
from mmdet_adasap.latency import LatencyTable
from mmdet_adasap.pruning import (
    LatencyCost,
    MagnitudeImportance,
    Pruner,
    find_channels,
    timed_networks,
)
from mmdet_adasap.pruning import latency_cost as module
from mmdet_adasap.pruning.layer_calls import activations


@pytest.fixture(scope='module')
def channels():
    return find_channels(net(), runs(X))


def choices(channels, number: int, step: int = 1):
    rng = np.random.default_rng(0)
    sizes = channels.group_sizes
    for _ in range(number):
        yield np.minimum(-(-rng.integers(1, sizes + 1) // step) * step, sizes)


@pytest.mark.parametrize('step', [1, 8])
def test_sum_of_the_layers(channels, step):
    cost = LatencyCost(channels, formula_table(channels, step=step, networks=False))
    assert not cost.has_rest
    for counts in choices(channels, 20, step):
        assert cost(counts) == pytest.approx(nanoseconds(channels.calls, counts, step), rel=1e-6)
        assert cost.per_call(counts).sum() == pytest.approx(cost(counts), abs=1)


@pytest.mark.parametrize('most', [0, 100_000])
def test_tables_say_what_the_call_says(channels, most, monkeypatch):
    """Also where every layer is fitted, as those that read many groups are."""
    monkeypatch.setattr(module, 'MOST_OPTIONS', most)
    table = formula_table(channels, step=8, networks=(60.0, 25.0))
    cost = LatencyCost(channels, table)
    sizes = channels.group_sizes
    options = [np.unique([1, 8, 16, size // 2, size]) for size in sizes]
    constant, tables = cost.tables(options)
    rng = np.random.default_rng(0)
    for _ in range(20):
        choice = [int(rng.integers(len(option))) for option in options]
        counts = np.array([option[i] for option, i in zip(options, choice, strict=True)])
        total = constant + sum(t[tuple(choice[g] for g in groups)] for groups, t in tables)
        assert total == pytest.approx(cost(counts), abs=1)


@pytest.mark.parametrize('terms', [(1e6, 700.0, 50.0), (0, 700.0, 0), (1e6, 0, 50.0)])
def test_the_rest_is_fitted_to_the_networks(channels, terms):
    """What runs between layers goes with their values, weights with the parameters."""
    fixed, per_value, per_param = terms
    values = activations(channels.calls, len(channels.groups))

    def time(counts):
        rest = fixed + per_value * values(counts) + per_param * channels.params(counts)
        return nanoseconds(channels.calls, counts) + rest

    networks = [*timed_networks(channels).values()]
    times = tuple(time(counts) / REFERENCE_NS for counts in networks)
    cost = LatencyCost(channels, formula_table(channels, networks=times))
    assert cost.has_rest
    rng = np.random.default_rng(0)
    for counts in [*networks, *(rng.integers(1, channels.group_sizes + 1) for _ in range(5))]:
        assert cost(counts) == pytest.approx(time(counts), rel=1e-3)


def test_the_dense_network_is_met_where_the_others_are_not(channels):
    """All shares refer to it. Noise asks for a term below 0 here, which there is not."""
    dense, half, early = timed_networks(channels).values()
    layers = [
        nanoseconds(channels.calls, counts) / REFERENCE_NS for counts in (dense, half, early)
    ]
    times = (layers[0] + 9, layers[1] + 9.3, layers[2] + 8)
    cost = LatencyCost(channels, formula_table(channels, networks=times))
    assert cost(dense) == pytest.approx(times[0] * REFERENCE_NS, rel=1e-5)
    off = [
        cost(n) / (t * REFERENCE_NS) - 1 for n, t in zip((dense, half, early), times, strict=True)
    ]
    assert cost.misfit == pytest.approx(max(off, key=abs), abs=1e-6)
    assert 0 < abs(cost.misfit) < 0.1


@pytest.mark.parametrize('shares', [(0.8, 0.9), (1.0, 1.3), (0.9, 0.5)])
def test_networks_that_are_faster_than_their_layers(channels, shares):
    """A backend that joins layers: no rest is below 0, and fewer channels are never slower."""
    sizes = channels.group_sizes
    dense, half, _ = timed_networks(channels).values()
    layers = [nanoseconds(channels.calls, counts) for counts in (dense, half)]
    table = formula_table(
        channels,
        networks=tuple(s * t / REFERENCE_NS for s, t in zip(shares, layers, strict=True)),
    )
    cost = LatencyCost(channels, table)
    assert cost(sizes) == pytest.approx(shares[0] * layers[0], rel=1e-5)
    times = []
    while sizes.max() > 1:
        times.append(cost(sizes))
        sizes = -(-sizes // 2)
    assert times == sorted(times, reverse=True)
    assert min(times) > 0


def test_a_dense_network_that_is_faster_than_its_layers(channels):
    """And others that are not: it is met all the same."""
    layers = [nanoseconds(channels.calls, counts) for counts in timed_networks(channels).values()]
    shares = (0.9, 1.0, 1.0)
    times = tuple(s * t / REFERENCE_NS for s, t in zip(shares, layers, strict=True))
    cost = LatencyCost(channels, formula_table(channels, networks=times))
    assert cost(channels.group_sizes) == pytest.approx(0.9 * layers[0], rel=1e-4)
    assert cost.misfit < -0.01


@pytest.mark.parametrize('noise', [(1, 1), (1.03, 0.97), (0.97, 1.03)])
def test_networks_that_are_the_same(noise):
    """Groups of one step have no half: what their times differ by says nothing."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 4, 1)
    )
    channels = find_channels(model, runs(torch.rand(1, 3, 12, 12)))
    dense = 1.5 * nanoseconds(channels.calls, channels.group_sizes)
    times = tuple(dense * factor / REFERENCE_NS for factor in (1, *noise))
    cost = LatencyCost(channels, formula_table(channels, networks=times))
    assert cost(channels.group_sizes) == pytest.approx(dense, rel=1e-4)
    # Time that is not of the layers goes with their values.
    assert cost(np.ones_like(channels.group_sizes)) < 0.3 * dense


def test_noise_leaves_the_layers_their_part(channels):
    """Without them there are no steps, and no layer is dearer than another."""
    layers = [nanoseconds(channels.calls, counts) for counts in timed_networks(channels).values()]
    rng = np.random.default_rng(0)
    for _ in range(20):
        times = (np.array(layers) * 1.2 * rng.normal(1, 0.02, 3) / REFERENCE_NS).tolist()
        cost = LatencyCost(channels, formula_table(channels, networks=tuple(times)))
        assert 0.7 < cost.per_call(channels.group_sizes).sum() / layers[0] < 1.4


def test_a_table_of_another_model(channels):
    content = table_content(channels)
    content['layers'] = content['layers'][1:]
    with pytest.raises(LatencyTableError, match=r'has not timed conv 3x3 stride 1 on 8x8'):
        LatencyCost(channels, LatencyTable(content))


@pytest.mark.parametrize('solver', ['ranked', 'joint'])
@pytest.mark.parametrize(
    'limits', [dict(latency=0.5), dict(latency=0.6, params=0.3), dict(flops=0.5, latency=0.9)]
)
def test_all_limits_hold(channels, solver, limits):
    table = formula_table(channels, step=8, networks=(100.0, 70.0))
    pruner = Pruner(
        net(), runs(X), dict(limits, table=table), MagnitudeImportance(), 8, solver=solver
    )
    pruner.prune_to(pruner.targets)
    assert pruner.is_within_target
    structure = pruner.cut()
    reached = structure['reached']
    assert all(reached[resource] <= limit for resource, limit in limits.items())
    # One of them at least is used up but for a step.
    assert any(reached[resource] > 0.8 * limit for resource, limit in limits.items())
    assert structure['target'] == {**limits, 'table': table.digest}
    found = structure['latency']
    assert found['predicted_ms'] == pytest.approx(reached['latency'] * found['dense_ms'])
    assert found['measured_ms'] is None


def test_milliseconds_are_a_fraction_of_the_dense_time(channels):
    table = formula_table(channels)
    dense = nanoseconds(channels.calls, channels.group_sizes) / 1e6
    by_time, by_fraction = (
        Pruner(net(), runs(X), dict(latency=latency, table=table), MagnitudeImportance())
        for latency in (f'{dense / 2:.6f} ms', 0.5)
    )
    assert by_time.targets['latency'] == pytest.approx(0.5, abs=1e-5)
    assert not by_time.is_within_target
    kept = [pruner.select(pruner.targets) for pruner in (by_time, by_fraction)]
    assert [k.tolist() for k in kept[0]] == [k.tolist() for k in kept[1]]


def test_more_time_than_it_takes_removes_nothing(channels):
    target = dict(latency='12 s', table=formula_table(channels))
    pruner = Pruner(net(), runs(X), target, MagnitudeImportance())
    assert pruner.targets == {'latency': 1.0}
    assert pruner.is_within_target
    assert all(k.all() for k in pruner.select(pruner.targets))


def test_a_target_below_the_floor_says_the_floor(channels):
    table = formula_table(channels, networks=(400.0, 390.0))
    with pytest.raises(
        UnreachableTargetError, match=r'cutting channels cannot go below 3\d\d ms on that device'
    ):
        Pruner(net(), runs(X), dict(latency=0.5, table=table), MagnitudeImportance())


def test_a_model_that_was_cut_is_not_pruned_for_a_latency(channels):
    model = net()
    pruner = Pruner(model, runs(X), dict(params=0.8), MagnitudeImportance())
    pruner.prune_to(0.8)
    pruner.cut()
    table = formula_table(find_channels(model, runs(X)))
    with pytest.raises(ValueError, match='times the layers of a dense model'):
        Pruner(model, runs(X), dict(latency=0.5, table=table), MagnitudeImportance())


def test_layers_of_many_options_are_fitted(channels, monkeypatch):
    """They have no stairs then, and no table over all of their options."""
    sizes = channels.group_sizes
    table = formula_table(channels, step=16, networks=False)
    looked_up = LatencyCost(channels, table)
    monkeypatch.setattr(module, 'MOST_OPTIONS', 200)
    fitted = LatencyCost(channels, table)
    assert fitted(sizes) == pytest.approx(looked_up(sizes), rel=0.02)
    # 47 of 48 channels are as slow as 48, but for the fit.
    assert looked_up(sizes - 1) == looked_up(sizes)
    assert fitted(sizes - 1) < 0.99 * fitted(sizes)
    _, tables = fitted.tables([np.arange(1, size + 1) for size in sizes])
    assert max(t.size for _, t in tables) < 64 * 64


@pytest.mark.parametrize('networks', [(10.0, 60.0), (1e-6, 5e-7), (1e12, 5e11), (10.0, 5.0, 30.0)])
def test_networks_that_are_not_of_its_layers(channels, networks):
    with pytest.raises(LatencyTableError, match='the networks of the table do not fit its layers'):
        LatencyCost(channels, formula_table(channels, networks=networks))
