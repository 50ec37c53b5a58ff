# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Two gloo processes against one that has the images of both."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from _utils.processes import FailedError, FrozenNormModel, build, in_processes, settings
from _utils.toy import ToyModel
from mmdet_adasap.errors import EquivalenceError
from mmdet_adasap.hooks import AdaSAPHook, runner_state
from mmdet_adasap.hooks.runner_state import averaged_models
from mmdet_adasap.integration.distributed import unwrapped
from mmdet_adasap.optim import AdaSAPOptimWrapper
from mmdet_adasap.pruning import MagnitudeImportance, Pruner
from mmdet_adasap.pruning.structure import named_tensors

PHASE_ENDS = (6, 18, 36)
TAYLOR = dict(importance=dict(type='TaylorImportance'))
ONE_PASS = dict(perturbation=None, finetune=None)
LOSS_RATIO = dict(
    perturbation=dict(type='AdaptivePerturbation', loss_ratio=1.3),
    finetune=dict(type='UniformPerturbation', loss_ratio=1.2, scope='layer', asam=True),
)
EMA = dict(type='EMAHook', momentum=0.1)


def adasap(runner: Runner) -> AdaSAPHook:
    return next(hook for hook in runner.hooks if isinstance(hook, AdaSAPHook))


def at_each_iteration(runner: Runner, look) -> None:
    hook = Hook()
    hook.after_train_iter = lambda *_, **__: look(runner.iter + 1)
    runner.register_hook(hook, priority='LOWEST')


def train(cfg: dict, model: type[ToyModel] = FrozenNormModel) -> dict:
    """Weights when each phase ends, and what was kept; of the EMA copies at the end."""
    runner = build(cfg, model)
    seen = dict(weights={}, kept=[])

    def look(done: int) -> None:
        if done in PHASE_ENDS:
            seen['weights'][done] = copy.deepcopy(named_tensors(unwrapped(runner.model)))
        if adasap(runner).pruner is not None:
            seen['kept'].append(adasap(runner).pruner.masks.counts.tolist())

    at_each_iteration(runner, look)
    runner.train()
    seen['averaged'] = [named_tensors(model) for model in averaged_models(runner)]
    seen['structure'] = adasap(runner).structure
    return seen


def difference(left: dict, right: dict) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


def assert_same(left: dict, right: dict, atol: float) -> None:
    assert left['structure'] == right['structure']
    for done in PHASE_ENDS:
        if done in left['weights'] and done in right['weights']:
            found = difference(left['weights'][done], right['weights'][done])
            assert found <= atol, f'{found} after {done} iterations'
    for one, other in zip(left['averaged'], right['averaged'], strict=True):
        assert difference(one, other) <= atol


def accumulating(cfg: dict, counts: int = 4, **wrapper) -> dict:
    """Steps begin and end inside phases, events and the cut fall between two of them."""
    cfg['optim_wrapper'] = cfg['optim_wrapper'] | dict(accumulative_counts=counts) | wrapper
    return cfg


CASES = {
    'magnitude': lambda d, b: settings(d, batch=b, custom_hooks=[EMA]),
    'taylor': lambda d, b: settings(d, TAYLOR, b),
    'magnitude, accumulated': lambda d, b: accumulating(settings(d, batch=b), 2),
    'taylor, accumulated': lambda d, b: accumulating(settings(d, TAYLOR, b)),
    'taylor, accumulated, loss ratio': lambda d, b: accumulating(
        settings(d, TAYLOR | LOSS_RATIO, b), 2
    ),
    'taylor, accumulated, one pass': lambda d, b: accumulating(settings(d, TAYLOR | ONE_PASS, b)),
    'taylor, accumulated, plain wrapper': lambda d, b: accumulating(
        settings(d, TAYLOR | ONE_PASS, b), type='OptimWrapper'
    ),
}
WRAPPERS = {
    'find_unused_parameters': dict(find_unused_parameters=True),
    'static_graph': dict(static_graph=True),
    'gradient_as_bucket_view': dict(gradient_as_bucket_view=True),
    'broadcast_buffers': dict(broadcast_buffers=True),
}


class TestTwoProcesses:
    @pytest.mark.parametrize(
        'case',
        [
            'magnitude',
            *(pytest.param(c, marks=pytest.mark.long) for c in CASES if c != 'magnitude'),
        ],
    )
    def test_they_equal_one_with_both_batches(self, tmp_path, case):
        ranks = in_processes(train, tmp_path, CASES[case](tmp_path / 'two', 2))
        assert_same(*ranks, atol=0)
        one = train(CASES[case](tmp_path / 'one', 4))
        assert ranks[0]['kept'] == one['kept']
        assert len({tuple(kept) for kept in one['kept']}) == 4
        assert one['weights'].keys() == ranks[0]['weights'].keys() == {*PHASE_ENDS}
        assert_same(ranks[0], one, atol=1e-6)

    @pytest.mark.long
    @pytest.mark.parametrize('wrapper', WRAPPERS)
    def test_settings_of_the_wrapper(self, tmp_path, wrapper):
        # What one pass leaves in a bucket is what the next one would overwrite.
        hook = TAYLOR | (ONE_PASS if wrapper == 'gradient_as_bucket_view' else {})
        cfg = accumulating(settings(tmp_path / 'two', hook), 2)
        cfg['model_wrapper_cfg'] = WRAPPERS[wrapper]
        ranks = in_processes(train, tmp_path, cfg)
        assert_same(*ranks, atol=0)
        one = train(accumulating(settings(tmp_path / 'one', hook, 4), 2))
        assert_same(ranks[0], one, atol=1e-6)


def resumed(cfg: dict, epoch: int) -> dict:
    whole = Path(cfg['work_dir'])
    cfg = {**cfg, 'work_dir': str(whole / f'from_{epoch}'), 'resume': True}
    return train(cfg | dict(load_from=str(whole / f'epoch_{epoch}.pth')))


def whole_and_resumed(cfg: dict) -> list[dict]:
    """Uninterrupted, and resumed from warm-up, between two events, at the cut and after it."""
    return [train(cfg), *(resumed(cfg, epoch) for epoch in (1, 2, 3, 5))]


def twice(cfg: dict) -> list[dict]:
    """A run, one that prunes its result further, and that one resumed before and after its cut."""
    first = train(cfg)
    folder = Path(cfg['work_dir'])
    again = settings(folder / 'again', TAYLOR | dict(target=dict(params=0.25)))
    second = train(again | dict(load_from=str(folder / 'epoch_6.pth')))
    return [first, second, resumed(again, 2), resumed(again, 3)]


def resumed_apart(cfg: dict) -> None:
    """Rank 1 goes on from a file with other weights."""
    train(cfg)
    epoch_5, other = (Path(cfg['work_dir'], f'{name}.pth') for name in ('epoch_5', 'other'))
    if get_rank() == 1:
        checkpoint = torch.load(epoch_5, weights_only=False)
        checkpoint['state_dict']['fc.bias'] += 1
        torch.save(checkpoint, other)
    file = str(other if get_rank() == 1 else epoch_5)
    train({**cfg, 'resume': True, 'load_from': file, 'work_dir': f'{cfg["work_dir"]}/parts'})


class NoisyImportance(MagnitudeImportance):
    """Scores that differ from process to process."""

    def scores(self, group, tensors, kept):
        torch.manual_seed(get_rank())
        return torch.rand(group.size)


def train_failing(cfg: dict, name: str, model: type[ToyModel] = FrozenNormModel) -> None:
    """Rank 1 cannot do one thing."""

    def fail(*args, **kwargs):
        raise EquivalenceError('it broke')

    if get_rank() == 1:
        setattr(runner_state if name == 'sample_forward' else Pruner, name, fail)
    train(cfg, model)


class WithSharedLoss(FrozenNormModel):
    """A layer of the loss alone, and a loss that is averaged over processes as mmdet's are."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Conv2d(8, 4, 1)

    def forward(self, inputs, labels=None, mode='tensor'):
        result = super().forward(inputs, labels, mode)
        if mode == 'loss':
            loss = self.extra(self.stem(inputs)).square().mean()
            boxes = torch.ones(1)
            if distributed.is_initialized():
                distributed.all_reduce(boxes)
            result['loss_extra'] = loss / boxes.item()
        return result


def train_with_other_digests(cfg: dict, found: bool) -> None:
    """Rank 1 finds, or keeps, something else."""
    if get_rank() == 1 and found:
        Pruner.digest = lambda self: 'other'
    elif get_rank() == 1:
        cut = Pruner.cut
        Pruner.cut = lambda *args: cut(*args) | dict(digest='other')
    train(cfg)


def train_wrapped(cfg: dict) -> None:
    """As a user might do who wraps the model on his own."""
    runner = build(cfg)
    runner.model = DistributedDataParallel(unwrapped(runner.model))
    runner.train()


def wrapper_before_and_after(cfg: dict) -> list:
    runner = build(cfg)
    keys = ('broadcast_buffers', 'find_unused_parameters', 'static_graph', 'training')
    seen = []

    def look(done: int) -> None:
        if done in (17, 18):
            model = runner.model
            seen.append((type(model).__name__, *(getattr(model, key) for key in keys)))
            seen.append(id(model))

    at_each_iteration(runner, look)
    runner.train()
    return seen


@pytest.mark.long
class TestOneModel:
    def test_resuming_in_each_phase(self, tmp_path):
        ranks = in_processes(whole_and_resumed, tmp_path, settings(tmp_path / 'run', TAYLOR))
        for left, right in zip(*ranks, strict=True):
            assert_same(left, right, atol=0)
        whole, *parts = ranks[0]
        for part in parts:
            assert part['weights']
            assert_same(part, whole, atol=1e-6)

    def test_pruning_a_pruned_model(self, tmp_path):
        ranks = in_processes(twice, tmp_path, settings(tmp_path / 'run', TAYLOR))
        for left, right in zip(*ranks, strict=True):
            assert_same(left, right, atol=0)
        first, second, *parts = ranks[0]
        assert second['structure']['reached']['params'] <= 0.25
        assert second['structure']['dense'] == first['structure']['dense']
        for part in parts:
            assert_same(part, second, atol=1e-6)

    def test_other_checkpoints_are_an_error(self, tmp_path):
        with pytest.raises(FailedError) as failed:
            in_processes(resumed_apart, tmp_path, settings(tmp_path / 'two'))
        for error in failed.value.errors:
            assert error.startswith(
                'ProcessMismatchError: the checkpoints of rank 0 and of rank 1'
            )

    def test_rank_0_chooses(self, tmp_path):
        hook = dict(importance=NoisyImportance())
        ranks = in_processes(train, tmp_path, settings(tmp_path / 'two', hook))
        assert_same(*ranks, atol=0)

    def test_wrapper_is_made_anew_as_it_was(self, tmp_path):
        cfg = settings(tmp_path / 'two')
        cfg['model_wrapper_cfg'] = dict(broadcast_buffers=True, find_unused_parameters=True)
        for before, old, after, new in in_processes(wrapper_before_and_after, tmp_path, cfg):
            assert before == after == ('MMDistributedDataParallel', True, True, False, True)
            assert old != new

    @pytest.mark.parametrize('name', ['sample_forward', 'select', 'cut'])
    def test_failure_in_one_process_ends_all(self, tmp_path, name):
        with pytest.raises(FailedError) as failed:
            in_processes(train_failing, tmp_path, settings(tmp_path / 'two'), name)
        assert failed.value.errors == [
            'OtherProcessError: rank 1 has stopped with EquivalenceError: it broke',
            'EquivalenceError: it broke',
        ]

    def test_failure_where_others_share_a_loss(self, tmp_path):
        """Rank 1 cannot run the model, rank 0 computes a loss that waits for all."""
        args = settings(tmp_path / 'two'), 'sample_forward', WithSharedLoss
        with pytest.raises(FailedError) as failed:
            in_processes(train_failing, tmp_path, *args)
        assert failed.value.errors[0].startswith('OtherProcessError: rank 1 has stopped with')

    def test_a_layer_of_a_shared_loss(self, tmp_path):
        ranks = in_processes(train, tmp_path, settings(tmp_path / 'two'), WithSharedLoss)
        assert_same(*ranks, atol=0)

    @pytest.mark.parametrize(
        ('found', 'what'), [(True, 'the channels that were found'), (False, 'the structures')]
    )
    def test_other_structures_are_an_error(self, tmp_path, found, what):
        with pytest.raises(FailedError) as failed:
            in_processes(train_with_other_digests, tmp_path, settings(tmp_path / 'two'), found)
        for error in failed.value.errors:
            assert error.startswith(
                f'ProcessMismatchError: {what} of rank 0 and of rank 1 are not'
            )

    def test_wrapper_that_the_runner_has_not_made(self, tmp_path):
        with pytest.raises(
            FailedError, match=r"launcher='pytorch': the model came to the Runner in"
        ):
            in_processes(train_wrapped, tmp_path, settings(tmp_path / 'two'))


def buffers_after_a_step(perturbation: dict | None) -> list:
    """Running statistics after two steps that change no weights, with other images each."""
    torch.manual_seed(0)
    model = MMDistributedDataParallel(ToyModel(), broadcast_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    wrapper = AdaSAPOptimWrapper(optimizer, perturbation=perturbation)
    torch.manual_seed(get_rank())
    for _ in range(2):
        data = dict(inputs=torch.randn(4, 3, 8, 8), labels=torch.arange(4))
        model.train_step(data, wrapper)
    return [buffer.clone() for buffer in model.buffers()]


def step_with_an_infinite_loss() -> tuple:
    """The loss of rank 1 is infinite, the gradients of both are finite."""
    torch.manual_seed(0)
    model = MMDistributedDataParallel(FrozenNormModel())
    wrapper = AdaSAPOptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.1), perturbation=dict(type='UniformPerturbation')
    )
    with wrapper.optim_context(model):
        loss = model(torch.randn(4, 3, 8, 8), torch.arange(4), mode='loss')['loss']
    wrapper.update_params(loss + (float('inf') if get_rank() else 0.0))
    return wrapper.last_stats['eps_ratio'].item(), dict(model.module.named_parameters())


def synced_passes(perturbation: dict | None) -> list[bool]:
    """Whether the gradient of each pass of two micro-batches is averaged."""
    model = MMDistributedDataParallel(FrozenNormModel())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = AdaSAPOptimWrapper(optimizer, perturbation=perturbation, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    synced = []
    model.module.register_forward_pre_hook(
        lambda *_: synced.append(model.require_backward_grad_sync)
    )
    for _ in range(2):
        data = dict(inputs=torch.randn(4, 3, 8, 8), labels=torch.arange(4))
        model.train_step(data, wrapper)
    return synced


@pytest.mark.long
class TestOptimWrapper:
    def test_second_pass_leaves_no_trace_in_buffers(self, tmp_path):
        perturbation = dict(type='UniformPerturbation', rho=0.5)
        once = in_processes(buffers_after_a_step, tmp_path, None)
        twice = in_processes(buffers_after_a_step, tmp_path, perturbation)
        for left, right in zip(once, twice, strict=True):
            assert all(map(torch.equal, left, right))
        assert not all(map(torch.equal, *once))

    def test_loss_that_is_not_finite_in_one_process(self, tmp_path):
        (one, left), (other, right) = in_processes(step_with_an_infinite_loss, tmp_path)
        assert one == other == 0
        assert difference(left, right) == 0

    def test_only_what_is_read_is_averaged(self, tmp_path):
        """Clean passes always; second passes, and steps of one pass, in the last micro-batch."""
        perturbation = dict(type='UniformPerturbation')
        for synced in in_processes(synced_passes, tmp_path, perturbation):
            assert synced == [True, False, True, True]
        for synced in in_processes(synced_passes, tmp_path, None):
            assert synced == [False, True]
