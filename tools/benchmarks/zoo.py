# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find and cut the channels of the models of mmdet, mmpretrain, torchvision or timm.

Of each folder of mmdet and mmpretrain the first config is taken that builds and runs on a CPU,
the plain ones first. Weights are random, nothing is downloaded. Every channel group loses
another share, by other chances than in the trial; the slim model has to give what the masked one
gives, in float64 where the model runs so. "left" is what remains of the parameters, "at least"
what remains where every group keeps one channel. Each model has a process of its own. The
results are written after every model, and a second call goes on where the first one stopped.

examples:
  python tools/benchmarks/zoo.py
  python tools/benchmarks/zoo.py --package mmpretrain --workers 4
  python tools/benchmarks/zoo.py --package timm --limit 5
  python tools/benchmarks/zoo.py --models ssd yolox retinanet --redo
  python tools/benchmarks/zoo.py --config mmdet::ssd/ssd300_coco.py      # one, as JSON
"""

import argparse
import collections
import copy
import json
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
import zoo_models

# Parts of configs, sets of data, trackers, and training tricks over models of other folders.
NO_MODELS = {
    # mmdet
    *('_base_', 'common', 'misc', 'legacy_1.x', 'scratch', 'selfsup_pretrain', 'timm_example'),
    *('albu_example', 'cityscapes', 'deepfashion', 'lvis', 'objects365', 'openimages', 'v3det'),
    *('wider_face', 'pascal_voc', 'reid', 'sort', 'deepsort', 'bytetrack', 'ocsort', 'qdtrack'),
    *('strongsort', 'masktrack_rcnn', 'mask2former_vis', 'dsdl', 'soft_teacher'),
    *('strong_baselines', 'resnet_strikes_back', 'simple_copy_paste', 'instaboost'),
}
PLAIN = {
    'mmdet': ('r50', 'tiny', '_s_', '_n_', 'nano', '18'),
    'mmpretrain': ('tiny', 'small', '-s_', '-t_', '-b0', '11', '18', 'resnet50'),
}
"""What is in the names of small and plain configs."""
CANDIDATES = 3
SECONDS = 240


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--package',
        choices=('mmdet', 'mmpretrain', 'torchvision', 'timm'),
        default='mmdet',
        help='whose zoo it is (default: mmdet)',
    )
    parser.add_argument(
        '--models',
        '--folders',
        dest='models',
        nargs='+',
        help="only these models, or folders of the package's configs",
    )
    parser.add_argument('--limit', type=int, help='look at so many models that were not yet')
    parser.add_argument(
        '--workers', type=int, default=1, help='processes at a time, one a core (default: 1)'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='results (default: work_dirs/zoo.json, or work_dirs/zoo_mmpretrain.json)',
    )
    parser.add_argument('--redo', action='store_true', help='also what is in the results')
    parser.add_argument('--config', help='look at one config or model, in this process')
    args = parser.parse_args()
    for key in ('limit', 'workers'):
        if (value := getattr(args, key)) is not None and value < 1:
            parser.error(f'--{key} {value}: must be at least 1')
    if args.out is None:
        args.out = Path('work_dirs/zoo.json')
        if args.package != 'mmdet':
            args.out = args.out.with_stem(f'zoo_{args.package}')
    return args


def build(config: str) -> tuple[torch.nn.Module, object]:
    """A model with random weights, and what runs it."""
    from mmdet_adasap.apis import build_dense, build_forward

    package, _, name = config.partition('::')
    if package in ('timm', 'torchvision'):
        model, forward = zoo_models.build(package, name)
        return randomised(model), forward
    model = randomised(build_dense(config))
    return model, build_forward(model)


def look_at(config: str) -> dict:
    """Prune one model by another share of every group."""
    from mmdet_adasap.errors import EquivalenceError
    from mmdet_adasap.pruning.analysis import find_channels
    from mmdet_adasap.pruning.model_state import eval_mode
    from mmdet_adasap.pruning.selection import minimum_counts
    from mmdet_adasap.pruning.tracing import trace_channels
    from mmdet_adasap.pruning.trial_cuts import trial_cuts

    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        model, forward = build(config)
    except Exception as error:
        return {'failed': 'does not run', 'reason': first_line(error)}
    with eval_mode(model):
        built = time.perf_counter()
        forward(model)
        ran = time.perf_counter()
    trace_channels(model, forward)
    traced = time.perf_counter()
    try:
        channels = find_channels(model, forward)
    except EquivalenceError as error:
        return {'failed': 'refused', 'reason': first_line(error)}
    found = time.perf_counter()
    # Other channels and shares than those of the trials, by chance.
    cuts = trial_cuts(model, channels.groups, seed=1)
    apart = max(verify(model, channels, kept, forward) for kept in cuts)
    counts = np.array([k.sum() for k in cuts[0]], dtype=np.int64)
    dense = channels.params(channels.group_sizes)
    frozen = {reason: len(axes) for reason, axes in channels.frozen.items()}
    return {
        'params': dense,
        'groups': len(channels.groups),
        'channels': int(channels.group_sizes.sum()),
        'left': channels.params(counts) / dense,
        'least': channels.params(minimum_counts(channels.group_sizes, 1)) / dense,
        'apart': apart,
        'whole': channels.excluded,
        'frozen': dict(sorted(frozen.items(), key=lambda item: -item[1])[:5]),
        'not_met': len(channels.unused_parameters),
        'seconds': {
            'build': built - start,
            'forward': ran - built,
            'trace': traced - ran,
            'find': found - traced,
        },
    }


def verify(model, channels, kept, forward) -> float:
    """The difference between slim and masked, in float64 if the model runs in it."""
    from mmdet_adasap.pruning import indices_from_masks, raw_outputs, verify_cut
    from mmdet_adasap.pruning.analysis import attribute_counts
    from mmdet_adasap.pruning.equivalence import in_double

    keep = indices_from_masks(model, channels.groups, kept)
    attrs = attribute_counts(model, channels, keep, kept)
    found = verify_cut(model, keep, forward, attrs)
    double = in_double(copy.deepcopy(model))
    try:
        raw_outputs(double, forward)
    except Exception:  # it brings tensors of its own in float32
        return found
    return verify_cut(double, keep, forward, attrs)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Statistics and affine parameters that are not 0 and 1, which would hide a wrong cut."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
            elif tensor.dim() > 1 and not tensor.isfinite().all():
                tensor.copy_(torch.rand(tensor.shape))
    return model


def candidates(package: str, folder: Path) -> list[Path]:
    """Configs of a folder, those of small and plain models first.

    mmpretrain has those that classify by what was pretrained otherwise in a folder below.
    """

    def rank(path: Path) -> tuple:
        name = path.stem
        plain = any(mark in name for mark in PLAIN[package])
        return (not plain, len(name), name)

    files = [path for path in folder.glob('*.py') if 'panoptic' not in path.stem]
    below = sorted(folder.glob('benchmarks/*.py'), key=rank)[:1]
    return sorted(files or folder.glob('*.py'), key=rank)[:CANDIDATES] + below


def in_a_process(name: str) -> dict:
    """What looking at one model in a process of its own has found."""
    command = [sys.executable, __file__, '--config', name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {'config': name, 'failed': 'too slow', 'reason': f'more than {SECONDS} s'}
    lines = done.stdout.strip().splitlines() or ['']
    if done.returncode:
        errors = done.stderr.strip().splitlines() or ['']
        return {'config': name, 'failed': 'does not build', 'reason': errors[-1][:300]}
    return {'config': name, **json.loads(lines[-1])}


def look_at_folder(package: str, folder: Path) -> dict:
    """The first config that can be looked at; else what stopped the first one."""
    first = None
    for config in candidates(package, folder):
        found = in_a_process(f'{package}::{config.relative_to(folder.parent)}')
        first = first or found
        if found.get('failed') in (None, 'refused', 'wrong cut', 'too slow'):
            return found
    return first or {'config': '', 'failed': 'no config', 'reason': ''}


def first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def line_of(model: str, found: dict) -> str:
    if 'failed' in found:
        return f'{model:<28} {found["failed"]}: {found["reason"][:110]}'
    whole = f', {len(found["whole"])} layers whole' if found['whole'] else ''
    seconds = found['seconds']
    times = f'trace {seconds["trace"]:.1f} s, find {seconds["find"]:.1f} s'
    left = f'{found["left"]:.3f} left, {found["least"]:.3f} at least'
    numbers = f'{left}, {found["groups"]} groups, apart {found["apart"]:.0e}'
    return f'{model:<28} {numbers}, {times}{whole}'


def read_results(path: Path) -> dict:
    """What was found before; nothing if there is no such file."""
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text())
        for folder, found in results.items():
            line_of(folder, found)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        sys.exit(f'zoo: --out {path} does not hold results ({error!r}); remove it or name another')
    return results


def table(package: str, results: dict) -> str:
    """Models, those that are pruned, refused and wrong, and the largest difference."""
    found = [r for r in results.values() if 'failed' not in r]
    pruned = [r for r in found if r['groups']]
    failed = collections.Counter(r['failed'] for r in results.values() if 'failed' in r)
    rows = [
        (f'models of {package}', len(results)),
        ('channels found and cut', len(pruned)),
        ('  to 0.6 of their parameters or less', sum(r['left'] <= 0.6 for r in pruned)),
        ('  with layers left whole after a trial', sum(bool(r['whole']) for r in pruned)),
        ('nothing can go', len(found) - len(pruned)),
        ('refused', failed.pop('refused', 0)),
        ('wrong cuts', failed.pop('wrong cut', 0)),
        *failed.most_common(),
        (
            'largest difference, slim to masked',
            f'{max((r["apart"] for r in found), default=0):.0e}',
        ),
    ]
    lines = [f'{name:<42} {value:>6}' for name, value in rows]
    lines += [
        f'{r["failed"]}: {name}: {r["reason"]}'
        for name, r in results.items()
        if r.get('failed') in ('refused', 'wrong cut')
    ]
    return '\n'.join(lines)


def bar(done: int, of: int) -> str:
    filled = 20 * done // of
    return f'[{"#" * filled}{"." * (20 - filled)}] {done:>{len(str(of))}}/{of}'


def sources(package: str) -> dict:
    """Names of the models, or of the folders of configs, to functions that look at them."""
    from mmdet_adasap.distributions import package_folder
    from mmdet_adasap.env import Remedies

    if package in ('timm', 'torchvision'):
        if package_folder(package) is None:
            sys.exit(
                f'zoo: {package} is not installed. Remedy: pip install -r '
                f'requirements/benchmarks.txt'
            )
        return {
            name: lambda name=name: in_a_process(f'{package}::{name}')
            for name in zoo_models.names(package)
        }
    installed = package_folder(package)
    if installed is None:
        command = Remedies.of_this_environment().install(package)
        sys.exit(f'zoo: {package} is not installed. Remedy: {command}')
    root = installed / '.mim' / 'configs'
    if not root.is_dir():
        sys.exit(
            f'zoo: {root} is missing: install {package} as a package, which carries its configs'
        )
    return {
        path.name: lambda path=path: look_at_folder(package, path)
        for path in sorted(root.iterdir())
        if path.is_dir() and path.name not in NO_MODELS
    }


def main() -> None:
    args = parse_args()
    if args.config:
        warnings.simplefilter('ignore')
        torch.set_num_threads(1)
        from mmdet_adasap.errors import EquivalenceError

        try:
            found = look_at(args.config)
        except EquivalenceError as error:
            found = {'failed': 'wrong cut', 'reason': first_line(error)}
        print(json.dumps(found))
        return

    from mmdet_adasap.fileio import write_atomically

    models = sources(args.package)
    unknown = set(args.models or ()) - models.keys()
    if unknown:
        sys.exit(f'zoo: --models {" ".join(sorted(unknown))}: not among those of {args.package}')
    wanted = [name for name in models if not args.models or name in args.models]
    results = read_results(args.out)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    to_do = [name for name in wanted if args.redo or name not in results][: args.limit]
    os.environ |= dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')  # of the processes below
    with ThreadPoolExecutor(args.workers) as pool:
        running = {pool.submit(models[name]): name for name in to_do}
        for done, future in enumerate(as_completed(running), start=1):
            name = running[future]
            results[name] = future.result()
            write_atomically(args.out, json.dumps(results, indent=2) + '\n')
            print(f'{bar(done, len(to_do))} {line_of(name, results[name])}', flush=True)
    print(table(args.package, {name: results[name] for name in wanted if name in results}))
    print(args.out)


if __name__ == '__main__':
    main()
