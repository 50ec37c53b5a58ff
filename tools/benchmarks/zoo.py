# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find and cut the channels of one config of every model folder in mmdet's or mmpretrain's zoo.

Of each folder the first config is taken that builds and runs on a CPU, with random weights, the
plain ones first. Half of every channel group goes; the slim model has to give what the masked
one gives. "left" is what remains of the parameters, "at least" what remains where every group
keeps one channel. Each config has a process of its own. The results are written after every
folder, and a second call goes on where the first one stopped.

examples:
  python tools/benchmarks/zoo.py
  python tools/benchmarks/zoo.py --package mmpretrain
  python tools/benchmarks/zoo.py --folders ssd yolox retinanet --redo
  python tools/benchmarks/zoo.py --config mmdet::ssd/ssd300_coco.py      # one, as JSON
"""

import argparse
import collections
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

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
        choices=('mmdet', 'mmpretrain'),
        default='mmdet',
        help='whose zoo it is (default: mmdet)',
    )
    parser.add_argument('--folders', nargs='+', help="only these folders of the package's configs")
    parser.add_argument(
        '--out',
        type=Path,
        help='results (default: work_dirs/zoo.json, or work_dirs/zoo_mmpretrain.json)',
    )
    parser.add_argument('--redo', action='store_true', help='also what is in the results')
    parser.add_argument('--config', help='look at one config, in this process')
    args = parser.parse_args()
    if args.out is None:
        args.out = Path('work_dirs/zoo.json')
        if args.package != 'mmdet':
            args.out = args.out.with_stem(f'zoo_{args.package}')
    return args


def look_at(config: str) -> dict:
    """Prune one config's model by half of every group."""
    from mmdet_adasap.apis import build_dense, build_forward
    from mmdet_adasap.errors import EquivalenceError
    from mmdet_adasap.pruning import indices_from_masks, verify_cut
    from mmdet_adasap.pruning.analysis import attribute_counts, find_channels
    from mmdet_adasap.pruning.model_state import eval_mode
    from mmdet_adasap.pruning.selection import minimum_counts
    from mmdet_adasap.pruning.tracing import trace_channels

    torch.manual_seed(0)
    start = time.perf_counter()
    model = randomised(build_dense(config))
    try:
        forward = build_forward(model)
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
    # Another half than that of the trial, by chance.
    rng = np.random.default_rng(1)
    kept = [rng.permutation(g.size) < (g.size + 1) // 2 for g in channels.groups]
    keep = indices_from_masks(model, channels.groups, kept)
    apart = verify_cut(model, keep, forward, attribute_counts(model, channels, keep, kept))
    counts = np.array([k.sum() for k in kept], dtype=np.int64)
    dense = channels.params(channels.group_sizes)
    frozen = {reason: len(axes) for reason, axes in channels.frozen.items()}
    return {
        'params': dense,
        'groups': len(channels.groups),
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


def look_at_folder(package: str, folder: Path) -> dict:
    """The first config that can be looked at; else what stopped the first one."""
    first = None
    for config in candidates(package, folder):
        name = f'{package}::{config.relative_to(folder.parent)}'
        command = [sys.executable, __file__, '--config', name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            lines = done.stdout.strip().splitlines() or ['']
            if done.returncode:
                errors = done.stderr.strip().splitlines() or ['']
                found = {'failed': 'does not build', 'reason': errors[-1][:300]}
            else:
                found = json.loads(lines[-1])
        except subprocess.TimeoutExpired:
            found = {'failed': 'too slow', 'reason': f'more than {SECONDS} s'}
        found = {'config': name, **found}
        first = first or found
        if found.get('failed') in (None, 'refused', 'wrong cut', 'too slow'):
            return found
    return first or {'config': '', 'failed': 'no config', 'reason': ''}


def first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def line_of(folder: str, found: dict) -> str:
    if 'failed' in found:
        return f'{folder:<22} {found["failed"]}: {found["reason"][:110]}'
    whole = f', {len(found["whole"])} modules whole' if found['whole'] else ''
    seconds = found['seconds']
    times = f'trace {seconds["trace"]:.1f} s, find {seconds["find"]:.1f} s'
    left = f'{found["left"]:.3f} left, {found["least"]:.3f} at least'
    numbers = f'{left}, {found["groups"]} groups, apart {found["apart"]:.0e}'
    return f'{folder:<22} {numbers}, {times}{whole}'


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


def summary(results: dict) -> str:
    found = [r for r in results.values() if 'failed' not in r]
    pruned = [r for r in found if r['groups']]
    small = [r for r in pruned if r['left'] <= 0.6]
    failed = collections.Counter(r['failed'] for r in results.values() if 'failed' in r)
    others = ', '.join(f'{count} {reason}' for reason, count in failed.most_common())
    return (
        f'{len(results)} folders: {len(pruned)} pruned, {len(small)} of them to 0.6 of their '
        f'parameters or less; {len(found) - len(pruned)} whole, where nothing can go; '
        f'{failed["wrong cut"]} wrong cuts; the rest: {others or "none"}'
    )


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

    from mmdet_adasap.distributions import package_folder
    from mmdet_adasap.env import remedy
    from mmdet_adasap.fileio import write_atomically

    package = package_folder(args.package)
    if package is None:
        sys.exit(f'zoo: {args.package} is not installed. Remedy: {remedy(args.package)}')
    root = package / '.mim' / 'configs'
    if not root.is_dir():
        sys.exit(
            f'zoo: {root} is missing: install {args.package} as a package, which carries its '
            f'configs'
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    folders = [path for path in folders if path.name not in NO_MODELS]
    if args.folders:
        unknown = set(args.folders) - {path.name for path in folders}
        if unknown:
            sys.exit(f'zoo: --folders {" ".join(sorted(unknown))}: not in {root}')
        folders = [path for path in folders if path.name in args.folders]
    results = read_results(args.out)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for number, folder in enumerate(folders, start=1):
        before = folder.name in results and not args.redo
        if not before:
            results[folder.name] = look_at_folder(args.package, folder)
            write_atomically(args.out, json.dumps(results, indent=2) + '\n')
        progress = f'[{number}/{len(folders)}]'
        print(f'{progress:>9} {line_of(folder.name, results[folder.name])}', flush=True)
    print(summary(results))
    print(args.out)


if __name__ == '__main__':
    main()
