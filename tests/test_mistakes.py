# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Mistakes that new users make in a config: each ends with one line, in words for our keys.

What they write is built as mmengine builds it from a config.
"""

from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, TRANSFORMS

from _utils.adasap_runs import build
from _utils.toy import ToyModel, settings
from mmdet_adasap.errors import SettingError, did_you_mean
from mmdet_adasap.hooks.unread_options import check_unread_options
from mmdet_adasap.pruning import Importance

CONFIGS = Path(__file__).parents[1] / 'configs'
HOOK = dict(type='AdaSAPHook', warmup=2, prune=8, target=dict(params=0.4))
SGD = dict(type='SGD', lr=0.1)

IMPORTANCES = (
    "use one of 'MagnitudeImportance', 'TaylorImportance', 'UniformWidth', or a class of your "
    'own that is registered in a module among custom_imports'
)
PERTURBATIONS = IMPORTANCES.replace(
    "'MagnitudeImportance', 'TaylorImportance', 'UniformWidth'",
    "'AdaptivePerturbation', 'UniformPerturbation'",
)
ONE_RESOURCE = "must be a dict with one or more of the keys ('params', 'flops', 'latency')"
FRACTION = 'params must be a fraction of the dense model above 0 and at most 1, for example'


def last_line(error: BaseException) -> str:
    """The text, as Python prints it last; a second line would hide the first one."""
    text = str(error)
    assert '\n' not in text
    return text


# What is written over HOOK (a value of None leaves the key out), and the line.
OF_HOOK = {
    'key': (dict(intervall=8), "AdaSAPHook: unexpected 'intervall'; did you mean 'interval'?"),
    'underscore': (dict(warm_up=2), "AdaSAPHook: unexpected 'warm_up'; did you mean 'warmup'?"),
    'capital': (
        dict(Target=dict(params=0.4)),
        "AdaSAPHook: unexpected 'Target'; did you mean 'target'?",
    ),
    'longer': (
        dict(prune_epochs=8),
        "AdaSAPHook: unexpected 'prune_epochs'; did you mean 'prune'?",
    ),
    'nothing like it': (
        dict(lr=1),
        "AdaSAPHook: unexpected 'lr'; it takes warmup, prune, target, perturbation, finetune, "
        'importance, interval, schedule, round_to, max_pruning_ratio, '
        'solver, objective, by_epoch',
    ),
    'no target': (
        dict(target=None),
        "AdaSAPHook: 'target' is missing; write what is to remain, as target=dict(params=0.4) or "
        'target=dict(flops=0.5)',
    ),
    'no warmup': (
        dict(warmup=None),
        "AdaSAPHook: 'warmup' is missing; write the epochs before pruning begins, as warmup=2",
    ),
    'delete': (
        dict(_delete_=True),
        "AdaSAPHook: unexpected '_delete_', which mmengine takes out only where a base config "
        'has the same key; leave it out',
    ),
    'number as target': (
        dict(target=0.5),
        f'target=0.5 {ONE_RESOURCE}; write target=dict(params=0.5) or target=dict(flops=0.5)',
    ),
    'param': (
        dict(target=dict(param=0.4)),
        f"target={{'param': 0.4}} {ONE_RESOURCE}; did you mean 'params'?",
    ),
    'flop': (
        dict(target=dict(flop=0.4)),
        f"target={{'flop': 0.4}} {ONE_RESOURCE}; did you mean 'flops'?",
    ),
    'percent': (
        dict(target=dict(params=40)),
        f"target={{'params': 40}}: {FRACTION} target=dict(params=0.4)",
    ),
    'quoted fraction': (
        dict(target=dict(params='0.4')),
        f"target={{'params': '0.4'}}: {FRACTION} target=dict(params=0.4), without quotes",
    ),
    'latency without a table': (
        dict(target=dict(latency=0.5)),
        "target={'latency': 0.5}: latency needs the table of the device: "
        'target=dict(latency=0.6, table="table.json"); adasap latency CONFIG --out table.json '
        'makes it',
    ),
    'time without a unit': (
        dict(target=dict(latency='12', table='table.json')),
        "target={'latency': '12', 'table': 'table.json'}: latency='12' must be a time as '12ms', "
        'with the unit s, ms or us, or a fraction of the dense time, without quotes',
    ),
    'a fraction and a time': (
        dict(target=dict(latency='0.5 12ms', table='table.json')),
        "target={'latency': '0.5 12ms', 'table': 'table.json'}: latency='0.5 12ms' must be a time "
        "as '12ms', with the unit s, ms or us, or a fraction of the dense time, without quotes",
    ),
    'milliseconds as a number': (
        dict(target=dict(latency=150, table='table.json')),
        "target={'latency': 150, 'table': 'table.json'}: latency must be a fraction of the dense "
        "model above 0 and at most 1, for example target=dict(latency=0.4, table='table.json') or "
        "latency='150ms'",
    ),
    'tabel': (
        dict(target=dict(latency=0.5, tabel='table.json')),
        f"target={{'latency': 0.5, 'tabel': 'table.json'}} {ONE_RESOURCE}; did you mean 'table'?",
    ),
    'table for parameters': (
        dict(target=dict(params=0.5, table='table.json')),
        "target={'params': 0.5, 'table': 'table.json'}: table is for a latency, of which there is "
        'none: leave it out, or write latency',
    ),
    'no such table': (
        dict(target=dict(latency=0.5, table='no_such.json')),
        'target.table: no_such.json: cannot be read (No such file or directory); make it with '
        'adasap latency CONFIG --out no_such.json, or write the path of a table that is there',
    ),
    'empty target': (
        dict(target={}),
        f'target={{}} {ONE_RESOURCE}; write target=dict(params=0.4)',
    ),
    'round to 0': (dict(round_to=0), 'round_to=0 must be an integer of at least 1'),
    'no pruning': (dict(prune=0), 'prune=0 must be an integer of at least 1'),
    'negative': (dict(warmup=-1), 'warmup=-1 must be an integer of at least 0'),
    'half epochs': (
        dict(warmup=1.5),
        'warmup=1.5 must be an integer of at least 0; for a part of an epoch count iterations, '
        'with by_epoch=False',
    ),
    'quoted integer': (
        dict(prune='10'),
        "prune='10' must be an integer of at least 1; write prune=10, without quotes",
    ),
    'schedule': (
        dict(schedule='cosine'),
        "schedule='cosine' is unknown; use one of ['exponential', 'linear']",
    ),
    'rho of the other': (
        dict(perturbation=dict(type='AdaptivePerturbation', rho=0.1)),
        "perturbation: AdaptivePerturbation: unexpected 'rho'; did you mean 'rho_min' or "
        "'rho_max'?",
    ),
    'rhomax': (
        dict(perturbation=dict(type='AdaptivePerturbation', rhomax=0.1)),
        "perturbation: AdaptivePerturbation: unexpected 'rhomax'; did you mean 'rho_max'?",
    ),
    'rho_max of the other': (
        dict(finetune=dict(type='UniformPerturbation', rho_max=0.1)),
        "finetune: UniformPerturbation: unexpected 'rho_max'; did you mean 'rho'?",
    ),
    'name as perturbation': (
        dict(perturbation='adaptive'),
        "perturbation='adaptive' is neither a dict nor None; write "
        "perturbation=dict(type='AdaptivePerturbation')",
    ),
    'perturbation without type': (
        dict(perturbation=dict(rho=0.1)),
        f"perturbation.type is missing in {{'rho': 0.1}}; {PERTURBATIONS}",
    ),
    'type of perturbation': (
        dict(finetune=dict(type='SAM')),
        f"finetune.type='SAM' is unknown; {PERTURBATIONS}",
    ),
    'importance as perturbation': (
        dict(finetune=dict(type='TaylorImportance')),
        f"finetune.type='TaylorImportance' is unknown; {PERTURBATIONS}; TaylorImportance is of "
        'the kind importance',
    ),
    'perturbation as importance': (
        dict(importance=dict(type='UniformPerturbation', rho=0.1)),
        f"importance.type='UniformPerturbation' is unknown; {IMPORTANCES}; UniformPerturbation "
        'is of the kind perturbation',
    ),
    'hook as importance': (
        dict(importance=dict(type='CheckpointHook')),
        f"importance.type='CheckpointHook' is unknown; {IMPORTANCES}",
    ),
    'short name': (
        dict(importance='taylor'),
        "importance='taylor' is neither a dict nor None; write "
        "importance=dict(type='TaylorImportance')",
    ),
    'unknown name': (
        dict(importance='foo'),
        "importance='foo' is neither a dict nor None; write importance=dict(type=...), the type "
        "one of 'MagnitudeImportance', 'TaylorImportance', 'UniformWidth'",
    ),
    'key of importance': (
        dict(importance=dict(type='TaylorImportance', normalise=True)),
        "importance: TaylorImportance: unexpected 'normalise'; did you mean 'normalize'?",
    ),
    'p of the other': (
        dict(importance=dict(type='TaylorImportance', p=2)),
        "importance: TaylorImportance: unexpected 'p'; it takes normalize",
    ),
}


@pytest.mark.parametrize('mistake', OF_HOOK)
def test_hook(mistake):
    changes, line = OF_HOOK[mistake]
    config = {key: value for key, value in (HOOK | changes).items() if value is not None}
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        HOOKS.build(Config(dict(hook=config)).hook)
    assert last_line(error.value) == line


OTHERS = {
    'corruption': (
        HOOKS,
        dict(type='RobustnessHook', corruption=['fog']),
        "RobustnessHook: unexpected 'corruption'; did you mean 'corruptions'?",
    ),
    'severity': (
        HOOKS,
        dict(type='RobustnessHook', severity=3),
        "RobustnessHook: unexpected 'severity'; did you mean 'severities'?",
    ),
    'intervals': (
        HOOKS,
        dict(type='RobustnessHook', interval='5'),
        "RobustnessHook.interval='5' must be an integer of at least 1; write interval=5, without "
        'quotes',
    ),
    'seed': (
        HOOKS,
        dict(type='RobustnessHook', seed='0'),
        "RobustnessHook.seed='0' must be an integer of at least 0; write seed=0, without quotes",
    ),
    'one corruption': (
        HOOKS,
        dict(type='RobustnessHook', corruptions='fog'),
        "RobustnessHook.corruptions='fog' must be a list, as ['fog', 'snow']",
    ),
    'transform': (
        TRANSFORMS,
        dict(type='ImageCorruption', corruption='fog', serverity=3),
        "ImageCorruption: unexpected 'serverity'; did you mean 'severity'?",
    ),
    'no corruption': (
        TRANSFORMS,
        dict(type='ImageCorruption', severity=3),
        "ImageCorruption: 'corruption' is missing; it takes corruption, severity, seed, "
        'channel_order, mode, data_root',
    ),
}


@pytest.mark.parametrize('mistake', OTHERS)
def test_other_types(mistake):
    registry, config, line = OTHERS[mistake]
    with pytest.raises((ValueError, TypeError)) as error:
        registry.build(config)
    assert last_line(error.value) == line


OF_WRAPPER = {
    'clip_grads': (
        dict(type='AdaSAPOptimWrapper', clip_grads=dict(max_norm=1)),
        "AdaSAPOptimWrapper: unexpected 'clip_grads'; did you mean 'clip_grad'?",
    ),
    'pertubation': (
        dict(type='AdaSAPOptimWrapper', pertubation=dict(type='UniformPerturbation')),
        "AdaSAPOptimWrapper: unexpected 'pertubation'; did you mean 'perturbation'?",
    ),
    'paramwise': (
        dict(type='AdaSAPAmpOptimWrapper', paramwise_config=dict(norm_decay_mult=0)),
        "AdaSAPAmpOptimWrapper: unexpected 'paramwise_config'; did you mean 'paramwise_cfg'?",
    ),
    'dtypes': (
        dict(type='AdaSAPAmpOptimWrapper', d_types='bfloat16'),
        "AdaSAPAmpOptimWrapper: unexpected 'd_types'; did you mean 'dtype'?",
    ),
    'rho beside': (
        dict(type='AdaSAPOptimWrapper', rho=0.1),
        "AdaSAPOptimWrapper: unexpected 'rho'; it takes optimizer, accumulative_counts, "
        'clip_grad, perturbation, every, direction, paramwise_cfg, constructor',
    ),
    'radius': (
        dict(type='AdaSAPOptimWrapper', perturbation=dict(type='UniformPerturbation', rho='a')),
        "optim_wrapper.perturbation.rho='a' is not a number; give a number >= 0",
    ),
    'no type': (
        dict(type='AdaSAPOptimWrapper', perturbation=dict(rho_max=0.2)),
        f"optim_wrapper.perturbation.type is missing in {{'rho_max': 0.2}}; {PERTURBATIONS}",
    ),
}


@pytest.mark.parametrize('mistake', OF_WRAPPER)
def test_optim_wrapper(mistake):
    config, line = OF_WRAPPER[mistake]
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        build_optim_wrapper(ToyModel(), ConfigDict(optimizer=SGD, **config))
    assert last_line(error.value) == line


@pytest.mark.parametrize(
    ('registered', 'config'),
    [
        ('AdaSAPOptimWraper', dict(optim_wrapper=dict(type='AdaSAPOptimWraper', optimizer=SGD))),
        ('AdaSAPHok', dict(default_hooks=dict(adasap=dict(type='AdaSAPHok')))),
    ],
)
def test_types_that_mmengine_looks_up(tmp_path, registered, config):
    """Its own line, which README.md explains: our words cannot come in between."""
    with pytest.raises(KeyError) as error:
        build(settings(tmp_path, **config)).train()
    assert f'{registered} is not in the mmengine::' in last_line(error.value)
    readme = (CONFIGS.parent / 'README.md').read_text()
    assert 'is not in the mmengine::hook registry' in readme


OF_RUN = {
    'too long': (
        dict(hook=dict(warmup=3, prune=3)),
        'warmup=3 and prune=3 leave none of the 6 epochs of train_cfg to fine-tune; lower them '
        'or train for longer',
    ),
    'interval': (
        dict(hook=dict(interval=13)),
        'interval=13 is longer than the prune phase of 12 iterations, so nothing would be '
        'pruned; lower interval or lengthen prune',
    ),
    'iterations': (
        dict(train_cfg=dict(by_epoch=False, max_iters=36), param_scheduler=None),
        'by_epoch=True needs a train_cfg that counts epochs, and this one counts iterations; set '
        'by_epoch=False and give warmup and prune in iterations',
    ),
    'wrapper': (
        dict(optim_wrapper=dict(type='OptimWrapper', optimizer=SGD)),
        'perturbation needs optim_wrapper.type=AdaSAPOptimWrapper and the run has OptimWrapper. '
        "For mixed precision write optim_wrapper=dict(type='AdaSAPAmpOptimWrapper') and leave "
        'out --amp, with which train.py puts AmpOptimWrapper there. Or set perturbation=None, '
        'finetune=None to prune without the second pass',
    ),
    'two perturbations': (
        dict(
            optim_wrapper=dict(
                type='AdaSAPOptimWrapper',
                optimizer=SGD,
                perturbation=dict(type='UniformPerturbation', rho=0.1),
            )
        ),
        'optim_wrapper.perturbation and AdaSAPHook are both set, and the hook would replace it; '
        'leave out optim_wrapper.perturbation, or the hook for plain SAM',
    ),
    'two hooks': (
        dict(custom_hooks=[dict(HOOK)]),
        'default_hooks and custom_hooks: AdaSAPHook is there more than once; leave it in '
        'default_hooks alone',
    ),
}


@pytest.mark.parametrize('mistake', OF_RUN)
def test_run(tmp_path, mistake):
    changes, line = OF_RUN[mistake]
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        build(settings(tmp_path, **changes)).train()
    assert last_line(error.value) == line


READ_BY_NOBODY = (
    'of --cfg-options is read by nobody; for AdaSAPHook write --cfg-options default_hooks.adasap'
)
OPTIONS = {
    'adasap.interval': (8, f'adasap.interval=8 {READ_BY_NOBODY}.interval=8'),
    'adasap.round_to': (4, f'adasap.round_to=4 {READ_BY_NOBODY}.round_to=4'),
    'adasap.perturbation.rho_max': (
        0.2,
        f'adasap.perturbation.rho_max=0.2 {READ_BY_NOBODY}.perturbation.rho_max=0.2',
    ),
    'adasap_hook.prune': (3, f'adasap_hook.prune=3 {READ_BY_NOBODY}.prune=3'),
    'AdaSAPHook.warmup': (3, f'AdaSAPHook.warmup=3 {READ_BY_NOBODY}.warmup=3'),
    'hooks.adasap.interval': (8, f'hooks.adasap.interval=8 {READ_BY_NOBODY}.interval=8'),
    'target.flops': (0.5, f'target.flops=0.5 {READ_BY_NOBODY}.target.flops=0.5'),
    'interval': (8, f'interval=8 {READ_BY_NOBODY}.interval=8'),
    'control.finetune.rho': (0.2, f'control.finetune.rho=0.2 {READ_BY_NOBODY}.finetune.rho=0.2'),
}
SSD = CONFIGS / 'ssd512' / 'control-sam_ssd512_r50_8xb16-800e_voc0712.py'


@pytest.fixture(scope='module')
def shipped() -> Config:
    pytest.importorskip('mmdet')
    return Config.fromfile(SSD)


def with_options(config: Config, options: dict) -> Config:
    """What train.py makes of a config and ``--cfg-options``."""
    changed = Config(config.to_dict(), filename=config.filename)
    changed.merge_from_dict(options)
    return changed


@pytest.mark.parametrize('option', OPTIONS)
def test_options_that_nobody_reads(shipped, option):
    value, line = OPTIONS[option]
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        check_unread_options(with_options(shipped, {option: value}), 'AdaSAPHook')
    assert last_line(error.value) == line


def test_options_of_the_other_hook_that_nobody_reads(shipped):
    changed = with_options(shipped, {'robustness.interval': 2})
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        check_unread_options(changed, 'RobustnessHook', 'robustness', frozenset())
    assert last_line(error.value) == (
        'robustness.interval=2 of --cfg-options is read by nobody; for RobustnessHook write '
        '--cfg-options default_hooks.robustness.interval=2'
    )
    check_unread_options(changed, 'AdaSAPHook')


def test_options_that_work(shipped):
    """Those of the hook, and what is not ours; a run of the toy asks, too."""
    options = {
        'default_hooks.adasap.interval': 8,
        'train_cfg.max_epochs': 3,
        'channels': [1],
        'checkpoint.interval': 5,  # nobody reads it either, but it was not meant for us
        'work_dir': 'elsewhere',
    }
    changed = with_options(shipped, options)
    assert HOOKS.build(changed.default_hooks.adasap).settings.interval == 8
    check_unread_options(changed, 'AdaSAPHook')
    check_unread_options(shipped, 'AdaSAPHook')
    check_unread_options(Config(dict(adasap=dict(interval=8))), 'AdaSAPHook')  # of no file


def test_a_run_refuses_an_option_that_nobody_reads(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text('adasap = dict(round_to=8)\ndefault_hooks = dict(adasap=dict(**adasap))\n')
    config = Config.fromfile(file)
    config.merge_from_dict({'adasap.interval': 8})
    with pytest.raises(ValueError, match=r'^adasap\.interval=8 of --cfg-options is read by nob'):
        build(settings(tmp_path / 'run', cfg=config)).train()


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        (
            {'default_hooks.adasap.target.flops': 50},
            f"target={{'params': 0.4, 'flops': 50}}: flops{FRACTION.removeprefix('params')} "
            'target=dict(flops=0.5)',
        ),
        (
            {'default_hooks.adasap.intervall': 8},
            OF_HOOK['key'][1],
        ),
    ],
)
def test_options_of_the_hook_are_checked(shipped, options, line):
    changed = with_options(shipped, options)
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        HOOKS.build(changed.default_hooks.adasap)
    assert last_line(error.value) == line


class OwnImportance(Importance):
    """Of a user who passes arguments on."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)

    def scores(self, *args):
        raise NotImplementedError


def test_own_classes_may_pass_arguments_on():
    config = dict(HOOK, importance=dict(type=OwnImportance, normalize=False))
    assert HOOKS.build(config).settings.importance.normalize is False


def test_errors_are_python_s_too():
    with pytest.raises(TypeError):
        HOOKS.build(dict(HOOK, intervall=8))
    assert issubclass(SettingError, ValueError)


def test_did_you_mean():
    assert did_you_mean('seed', ['interval', 'seeds']) == "; did you mean 'seeds'?"
    assert did_you_mean('p', ['parameters', 'rho']) == ''
    assert did_you_mean('', ['rho']) == ''
