# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a two-pass step costs: time, memory, and how much of it is not the two passes.

Plain steps (mmengine's OptimWrapper) and AdaSAP steps (AdaSAPOptimWrapper) are taken in turn,
with --amp one pass and two of AdaSAPAmpOptimWrapper,
in one process, by one model with one optimizer on one random batch, so that whatever else the
machine does falls on both. Nothing is downloaded: pretrained weights are left out.

examples:
  python tools/benchmarks/sharpness_step.py                                  # SSD300, batch 4
  python tools/benchmarks/sharpness_step.py --device cuda --steps 50 --json cost.json
  python tools/benchmarks/sharpness_step.py --config mmdet::yolox/yolox_s_8xb8-300e_coco.py
  python tools/benchmarks/sharpness_step.py --direction momentum             # one pass
  python tools/benchmarks/sharpness_step.py --config torchvision::ssd300_vgg16   # no mmcv needed
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from mmdet_adasap.fileio import write_atomically
from mmdet_adasap.integration.configs import read_config
from mmdet_adasap.optim import AdaSAPAmpOptimWrapper, AdaSAPOptimWrapper
from mmdet_adasap.sharpness import AdaptivePerturbation
from mmdet_adasap.sharpness.blocks import find_blocks

# Many steps on one batch of noise: too small a rate to diverge, and a step takes as long.
OPTIMIZER = {'type': 'SGD', 'lr': 1e-7, 'momentum': 0.9, 'weight_decay': 5e-4}
WARMUP = 1


class TorchvisionDetector(BaseModel):
    """A torchvision detector as an mmengine model, for machines without mmcv.

    Args:
        name (str): A function of :mod:`torchvision.models.detection`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import detection

        self.detector = getattr(detection, name)(
            weights=None, weights_backbone=None, num_classes=21
        )

    def forward(self, inputs, targets, mode='loss'):
        losses = self.detector(inputs, targets)
        return {f'loss_{key}': value for key, value in losses.items()}


def build_torchvision(name: str, batch: int, size: int | None) -> tuple[BaseModel, dict]:
    """A torchvision detector and a random batch for it."""
    size = size or 300
    box = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.9, 0.8]]) * size
    targets = [{'boxes': box.clone(), 'labels': torch.tensor([1, 2])} for _ in range(batch)]
    inputs = [torch.rand(3, size, size) for _ in range(batch)]
    return TorchvisionDetector(name), {'inputs': inputs, 'targets': targets}


def build_mmdet(path: str, batch: int, size: int | None) -> tuple[BaseModel, dict]:
    """The detector of an mmdet config, and a random batch for it."""
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    cfg = read_config(path)
    strip_pretrained(cfg.model)
    model = MODELS.build(cfg.model)
    logging.disable(logging.INFO)  # a line for each parameter
    model.init_weights()
    logging.disable(logging.NOTSET)
    # Resizing in batches asks a Runner for its iteration.
    MessageHub.get_current_instance().update_info('iter', 0)
    size = size or cfg.get('input_size') or 640
    classes = max(find_values(cfg.model, 'num_classes'), default=20)
    data = demo_mm_inputs(
        batch, (3, size, size), num_classes=classes, use_box_type=True, num_items=[4] * batch
    )
    return model, data


def strip_pretrained(cfg: dict | list) -> None:
    """Drop every reference to pretrained weights, which would be downloaded."""
    if isinstance(cfg, dict):
        init_cfg = cfg.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            cfg['init_cfg'] = None
        if 'pretrained' in cfg:
            cfg['pretrained'] = None
    if isinstance(cfg, dict | list):
        for value in cfg.values() if isinstance(cfg, dict) else cfg:
            strip_pretrained(value)


def find_values(cfg: dict | list, key: str) -> list[int]:
    """All integers under ``key``, at any depth."""
    if isinstance(cfg, dict):
        own = [cfg[key]] if isinstance(cfg.get(key), int) else []
        return own + [v for value in cfg.values() for v in find_values(value, key)]
    return [v for value in cfg for v in find_values(value, key)] if isinstance(cfg, list) else []


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


@contextmanager
def passes_timed(model: torch.nn.Module, device: torch.device) -> Iterator[list[float]]:
    """Collect the seconds of all forward and backward passes inside the block."""
    seconds, started = [], []
    backward = torch.Tensor.backward

    def start(*_):
        synchronize(device)
        started.append(time.perf_counter())

    def stop(*_):
        synchronize(device)
        seconds.append(time.perf_counter() - started.pop())

    def timed_backward(*args, **kwargs):
        start()
        backward(*args, **kwargs)
        stop()

    hooks = [model.register_forward_pre_hook(start), model.register_forward_hook(stop)]
    torch.Tensor.backward = timed_backward
    try:
        yield seconds
    finally:
        torch.Tensor.backward = backward
        for hook in hooks:
            hook.remove()


class Times(NamedTuple):
    """What a step took.

    Attributes:
        wall (float): Seconds on the clock.
        cpu (float): Seconds of processor time, all threads together: what other programs on
            the machine do hardly changes it.
        outside (float): Share of the clock's seconds that is neither forward nor backward.
    """

    wall: float
    cpu: float
    outside: float


def timed(step: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds that a step takes, on the clock and of processor time."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def times_of(step: Callable[[], None], model: torch.nn.Module, device: torch.device) -> Times:
    """Take a step, two on a GPU, and time it."""
    with passes_timed(model, device) as seconds:
        wall, cpu = timed(step, device)
    outside = 1 - sum(seconds) / wall
    if device.type == 'cuda':  # watching the passes waits for the GPU in between
        wall, cpu = timed(step, device)
    return Times(wall, cpu, outside)


def peak_memory(step: Callable[[], None], device: torch.device) -> int:
    """Highest number of bytes that a step holds in tensors beyond what it starts with."""
    if device.type == 'cuda':
        synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    held = peak = 0
    for event in sorted(
        (event for event in events if event.name() == '[memory]'),
        key=lambda event: event.start_ns(),
    ):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(args: argparse.Namespace) -> dict:
    """Run the benchmark.

    Args:
        args (argparse.Namespace): The command line.

    Returns:
        dict: All figures, as plain numbers and strings.
    """
    torch.manual_seed(0)
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    source, _, name = args.config.partition('::')
    if source == 'torchvision':
        model, data = build_torchvision(name, args.batch, args.size)
    else:
        model, data = build_mmdet(args.config, args.batch, args.size)
    model.to(device).train()

    plain = build_optim_wrapper(model, {'type': 'OptimWrapper', 'optimizer': dict(OPTIMIZER)})
    sharp = dict(perturbation=AdaptivePerturbation(), direction=args.direction)
    if args.amp:
        plain = AdaSAPAmpOptimWrapper(plain.optimizer, dtype=args.amp)
        adasap = AdaSAPAmpOptimWrapper(plain.optimizer, dtype=args.amp, **sharp)
    else:
        adasap = AdaSAPOptimWrapper(plain.optimizer, **sharp)

    def step_of(wrapper: OptimWrapper) -> Callable[[], None]:
        batch = copy.deepcopy(data)  # a model may change its samples
        return lambda: model.train_step(batch, wrapper)

    wrappers = {'plain': plain, 'adasap': adasap}
    times = {key: [] for key in wrappers}
    for round_ in range(WARMUP + args.steps):
        for key, wrapper in wrappers.items():
            taken = times_of(step_of(wrapper), model, device)
            if round_ >= WARMUP:
                times[key].append(taken)
    peaks = {key: peak_memory(step_of(wrapper), device) for key, wrapper in wrappers.items()}
    weights = [block.param for block in find_blocks(model) if block.is_weight]
    weight_bytes = sum(w.numel() * w.element_size() for w in weights if w.requires_grad)
    middle = {
        key: Times(*(statistics.median(column) for column in zip(*taken, strict=True)))
        for key, taken in times.items()
    }
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
    return {
        'config': args.config,
        'batch': args.batch,
        'device': name,
        'precision': args.amp or 'float32',
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'steps': args.steps,
        'parameters': sum(p.numel() for p in model.parameters()),
        'perturbed_weights': sum(w.numel() for w in weights if w.requires_grad),
        'times': {key: [t._asdict() for t in taken] for key, taken in times.items()},
        'medians': {key: median._asdict() for key, median in middle.items()},
        'wall_ratio': middle['adasap'].wall / middle['plain'].wall,
        'cpu_ratio': middle['adasap'].cpu / middle['plain'].cpu,
        'peak_bytes': peaks,
        'extra_copies': (peaks['adasap'] - peaks['plain']) / weight_bytes,
        'eps_ratio': float(adasap.last_stats['eps_ratio']),
    }


def report(result: dict) -> str:
    """The figures as a table."""
    plain, adasap = (Times(**result['medians'][key]) for key in ('plain', 'adasap'))
    mib = [result['peak_bytes'][key] / 2**20 for key in ('plain', 'adasap')]
    rows = [
        ('median of a step', 'plain', 'AdaSAP', 'AdaSAP over plain'),
        ('time', f'{plain.wall:.4f} s', f'{adasap.wall:.4f} s', f'{result["wall_ratio"]:.3f} x'),
        (
            'processor time',
            f'{plain.cpu:.4f} s',
            f'{adasap.cpu:.4f} s',
            f'{result["cpu_ratio"]:.3f} x',
        ),
        ('outside the passes', f'{plain.outside:.1%}', f'{adasap.outside:.1%}', ''),
        (
            'peak memory',
            f'{mib[0]:.1f} MiB',
            f'{mib[1]:.1f} MiB',
            f'{result["extra_copies"]:+.3f} copies of the perturbed weights',
        ),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f'{result["config"]}, batch {result["batch"]}, {result["device"]}, '
        f'{result["precision"]}, {result["threads"]} threads, torch {result["torch"]}',
        f'{result["parameters"] / 1e6:.2f} M parameters, '
        f'{result["perturbed_weights"] / 1e6:.2f} M perturbed, {result["steps"]} steps each',
        '',
    ]
    for row in rows:
        lines.append('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    return '\n'.join(line.rstrip() for line in lines)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--config',
        default='mmdet::pascal_voc/ssd300_voc0712.py',
        help="an mmdet config: a path, 'mmdet::path' for one of mmdet's own, or "
        "'torchvision::name' for a torchvision detector (default: %(default)s)",
    )
    parser.add_argument('--batch', type=int, default=4, help='images (default: %(default)s)')
    parser.add_argument(
        '--size', type=int, help="side of the images (default: the config's input_size, or 640)"
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 (default: cpu)')
    parser.add_argument(
        '--amp', choices=('bfloat16', 'float16'), help='mixed precision (default: float32)'
    )
    parser.add_argument(
        '--steps', type=int, default=10, help='steps of each kind (default: %(default)s)'
    )
    parser.add_argument(
        '--direction',
        choices=('gradient', 'momentum', 'previous'),
        default='gradient',
        help='that of AdaSAPOptimWrapper (default: gradient)',
    )
    parser.add_argument('--threads', type=int, help="torch's CPU threads (default: torch's)")
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    result = measure(args)
    print(report(result))
    if args.json:
        write_atomically(args.json, json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
