# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A target of latency in two processes: rank 0 times, and both cut the same."""

import pytest
import torch
from mmengine.dist import get_rank

from _utils.latency_runs import Clock, saving, toy_table
from _utils.processes import build, in_processes, settings
from mmdet_adasap.hooks import AdaSAPHook, latency_target
from mmdet_adasap.pruning.latency_check import SLOWER


def train(cfg: dict, fails: bool) -> dict:
    """Run with a clock of its own in each rank, as clocks are."""
    rank = get_rank()
    saved = saving((0.75, 0.5)[rank])

    def measured(share: float) -> float:
        if fails and rank == 0:
            raise RuntimeError('no memory')
        return saved(share)

    clock = latency_target.time_share_on = Clock(measured)
    runner = build(cfg)
    runner.train()
    (hook,) = (h for h in runner.hooks if isinstance(h, AdaSAPHook))
    weights = {name: p.detach() for name, p in runner.model.named_parameters()}
    return dict(structure=hook.structure, weights=weights, timed=len(clock.shares))


@pytest.mark.parametrize('fails', [False, True])
def test_both_cut_what_rank_0_has_timed(tmp_path, fails):
    table = toy_table(tmp_path / 'table.json')
    cfg = settings(tmp_path / 'run', dict(target=dict(latency=0.6, table=str(table))))
    first, second = in_processes(train, tmp_path / 'ranks', cfg, fails)
    assert first['structure'] == second['structure']
    assert second['timed'] == 0
    assert all(torch.equal(p, second['weights'][name]) for name, p in first['weights'].items())
    found, reached = first['structure']['latency'], first['structure']['reached']['latency']
    if fails:
        assert found['measured_ms'] is None
        assert 0.57 < reached <= 0.6
    else:
        share = saving(0.75)(found['predicted_ms'] / found['dense_ms'])
        assert first['timed'] > 1
        assert found['measured_ms'] == pytest.approx(share * found['dense_ms'], rel=1e-4)
        assert 0.57 < share <= 0.6 * (1 + SLOWER)
