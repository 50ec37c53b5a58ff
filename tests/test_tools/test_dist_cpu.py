# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Several processes on a CPU, as a user starts them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')

from builtin_sets.tiny_voc import build_tiny_voc
from mmdet_adasap.pruning.structure import META_KEY

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'dist_cpu.py'

# Rank 0 waits for what rank 1 will not do.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from torch import distributed
assert sys.argv[1:] == ['--flag', '--launcher', 'pytorch']
rank = distributed.get_rank()
Path('{folder}', str(rank)).write_text(str(os.getpid()))
if rank == 1:
    distributed.barrier()
    {rank_1}
distributed.barrier()
time.sleep(100)
"""


def start(*args: object) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k not in ('RANK', 'WORLD_SIZE')}
    paths = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    return subprocess.Popen(
        [sys.executable, TOOL, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | dict(PYTHONPATH=paths, OMP_NUM_THREADS='1'),
        # A shell has background jobs ignore it, and what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def start_script(folder: Path, rank_1: str) -> subprocess.Popen:
    script = folder / 'script.py'
    script.write_text(SCRIPT.format(folder=folder, rank_1=rank_1))
    return start(2, script, '--flag')


def assert_gone(folder: Path) -> None:
    for rank in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / str(rank)).read_text()), 0)


class TestEnd:
    @pytest.mark.long
    @pytest.mark.parametrize(
        ('rank_1', 'status', 'why'),
        [
            ("raise ValueError('no such thing')", 1, 'ValueError: no such thing'),
            ('os.kill(os.getpid(), signal.SIGKILL)', 137, 'killed by SIGKILL'),
        ],
        ids=['error', 'kill'],
    )
    def test_failing_process_ends_all(self, tmp_path, rank_1, status, why):
        process = start_script(tmp_path, rank_1)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == status
        assert errors.splitlines()[-1] == f'dist_cpu: rank 1 of 2 failed: {why}'
        assert_gone(tmp_path)

    @pytest.mark.long
    def test_interrupt_ends_all(self, tmp_path):
        process = start_script(tmp_path, 'time.sleep(100)')
        deadline = time.monotonic() + 60
        while not (tmp_path / '1').exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == 'dist_cpu: interrupted, all processes have ended'
        assert_gone(tmp_path)

    def test_number_of_processes(self):
        process = start('train', 'config.py')
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "'train' is not a number of processes, as 2" in errors


CONFIG = """
_base_ = {base!r}
train_dataloader = dict(batch_size={batch}, dataset=dict(data_root={data!r}))
val_dataloader = dict(dataset=dict(data_root={data!r}))
test_dataloader = dict(dataset=dict(data_root={data!r}))
"""
IMPORTS = "custom_imports = dict(imports=['mmdet_adasap', '_utils.frozen_norm'])"
DENSE = f"""
{IMPORTS}
custom_hooks = [dict(type='FastNorm')]
train_cfg = dict(max_epochs=10, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=0.01))
# Statistics follow weights that hardly move in the end.
param_scheduler = [dict(type='CosineAnnealingLR', T_max=50, eta_min=1e-5, by_epoch=False)]
"""
# 5 iterations an epoch: 20 in each phase.
ENDS = (4, 8, 12)
ADASAP = """
# The last bits of float32 decide which box a prediction is assigned to, and grow from there.
custom_imports = dict(imports=['mmdet_adasap', '_utils.frozen_norm', '_utils.in_double'])
custom_hooks = [dict(type='FrozenNorm')]
optim_wrapper = dict(optimizer=dict(lr=0.002), clip_grad=dict(max_norm=5))
load_from = {load_from!r}
train_cfg = dict(max_epochs=12, val_begin=13)  # NMS knows no float64
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=4, max_keep_ckpts=-1),
    adasap=dict(
        warmup=4,
        prune=4,
        interval=5,
        perturbation=dict(rho_min=0.001, rho_max=0.1),  # frozen norms make weights sensitive
        finetune=dict(rho=0.05),
    ),
)
"""


@pytest.fixture(scope='class')
def dense(tmp_path_factory) -> Path:
    """A folder with data, and with a detector that has trained a little."""
    folder = tmp_path_factory.mktemp('dist_cpu')
    build_tiny_voc(folder / 'data', train=40, val=4, test=4, size=128)
    run('train', written(folder, folder, 'dense', 8, DENSE), folder, 1)
    return folder


def written(folder: Path, data: Path, base: str, batch: int, rest: str) -> Path:
    base = str(ROOT / 'configs' / 'demo' / f'{base}_yolox_tiny-voc.py')
    text = CONFIG.format(base=base, batch=batch, data=f'{data}/data/VOCdevkit/')
    path = folder / 'config.py'
    path.write_text(text + rest)
    return path


def run(tool: str, config: Path, work_dir: Path, processes: int, *args: object) -> None:
    process = start(processes, tool, config, *args, '--work-dir', work_dir)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors


def train(dense: Path, work_dir: Path, processes: int, resume: Path | None = None) -> list[dict]:
    """The checkpoints with which the phases end, from the beginning or from such an end."""
    work_dir.mkdir()
    rest = ADASAP.format(load_from=str(dense / 'epoch_10.pth'))
    config = written(work_dir, dense, 'adasap', 8 // processes, rest)
    run('train', config, work_dir, processes, *(['--resume', resume] if resume else []))
    files = [work_dir / f'epoch_{epoch}.pth' for epoch in ENDS]
    return [torch.load(file, weights_only=False) for file in files if file.exists()]


def difference(left: dict, right: dict) -> float:
    """Between the weights of two checkpoints."""
    left, right = (checkpoint.get('state_dict', checkpoint) for checkpoint in (left, right))
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.mark.slow
class TestDetector:
    def test_two_processes_equal_one_with_both_batches(self, dense, tmp_path):
        """With mmdet's own train.py, and a YOLOX, whose losses are averaged over processes."""
        one, two = train(dense, tmp_path / 'one', 1), train(dense, tmp_path / 'two', 2)
        assert len(one) == len(two) == 3
        for left, right in zip(one, two, strict=True):
            assert left['meta'][META_KEY] == right['meta'][META_KEY]
            print(f'{left["meta"]["epoch"]}: {difference(left, right):.2e}')
        assert difference(one[0], two[0]) < 1e-6
        assert difference(one[1], two[1]) < 1e-6
        # What the warm-up leaves in the last bits flips an assignment of boxes 40 steps later, so
        # the end of both runs says little. From equal weights on they stay together.
        parts = train(dense, tmp_path / 'parts', 2, tmp_path / 'one' / f'epoch_{ENDS[0]}.pth')
        for left, right in zip(one[1:], parts, strict=True):
            assert left['meta'][META_KEY] == right['meta'][META_KEY]
            print(f'{left["meta"]["epoch"]}: {difference(left, right):.2e}, from equal weights')
            assert difference(left, right) < 1e-6
        ranks = [torch.load(tmp_path / 'two' / f'rank_{rank}.pth') for rank in (0, 1)]
        assert difference(*ranks) == 0

        checkpoint = tmp_path / 'two' / 'epoch_12.pth'
        config = written(tmp_path, dense, 'adasap', 4, IMPORTS)
        run('test', config, tmp_path / 'test', 2, checkpoint)
