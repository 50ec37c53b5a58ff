# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Show which channels of a config's model can be removed together, and what protects the rest.

No data and no weights are needed: the model is built with random weights and run once on an
image of noise, which has the size that the config's test pipeline makes. FLOPs are for that size.

With --target it also predicts a slim model: what the criterion --importance would remove from the
weights as they are (random, without --checkpoint), all at once. A training removes in steps, from
weights that change, and by the criterion of its AdaSAPHook. What the target limits comes out there
as here; how many channels each group keeps, and the other costs, do not.

With a target of latency and --table, which adasap latency makes, milliseconds are listed, too: of
each layer, before and after, of the rest of the network, and the least that cutting channels
can reach. --plot draws how much importance is kept for how much of the cost.

examples:
  python tools/list_groups.py mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
  python tools/list_groups.py configs/ssd300/adasap_ssd300_voc0712.py --target params=0.4
  python tools/list_groups.py CONFIG --target flops=0.5 --checkpoint dense.pth --json groups.json
  python tools/list_groups.py CONFIG --target latency=0.6 --table table.json --plot pareto.svg
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from ..fileio import quiet_on_closed_pipe, write_atomically
from .arguments import at_least_1, called_as, make_parser
from .dense_model import add_config, build_model, choose_image, quiet_or_exit
from .groups_table import describe, table
from .pareto_plot import SUFFIXES, draw_pareto, importance_kept, pareto_points

LAYERS_SHOWN = 20
"""Layers whose milliseconds are printed, the longest: a screen. --json has all of them."""
SOLVERS = ('joint', 'ranked')
"""Those of AdaSAPHook, without what importing it takes: seconds of --help."""


def parse_args() -> argparse.Namespace:
    parser = make_parser('list_groups.py', __doc__)
    add_config(parser)
    parser.add_argument(
        '--target',
        type=target,
        metavar='params=F|flops=F|latency=F',
        help='also predict a slim model that keeps this fraction, see above; several with commas, '
        'as params=0.5,latency=0.6, and latency=12ms',
    )
    parser.add_argument(
        '--table',
        metavar='FILE',
        help='times of the device, from adasap latency, for a target of latency; '
        '--target params=0.5,latency=1 shows the milliseconds of another target',
    )
    parser.add_argument(
        '--plot',
        type=Path,
        metavar='FILE',
        help='draw importance kept against the first cost of --target (.svg, .png or .pdf)',
    )
    parser.add_argument(
        '--solver',
        choices=sorted(SOLVERS),
        help="as in AdaSAPHook (default: what the config's hook says, or its default)",
    )
    parser.add_argument(
        '--round-to',
        type=at_least_1,
        metavar='N',
        help="as in AdaSAPHook (default: what the config's hook says, or 8, or the table's step)",
    )
    parser.add_argument(
        '--max-pruning-ratio',
        type=float,
        metavar='R',
        help="as in AdaSAPHook (default: what the config's hook says, or 0.9)",
    )
    parser.add_argument(
        '--importance',
        help=(
            'criterion of --target; one that needs no training, as magnitude (the default here, '
            'with a latency within layers of the same share; that of AdaSAPHook is Taylor, which '
            'leaves other channels and often more FLOPs)'
        ),
    )
    parser.add_argument(
        '--image-size',
        type=at_least_1,
        metavar='PIXELS',
        help='side of a square image, for which FLOPs are counted (default: what the test '
        'pipeline makes; without one the first that the model takes, of 256, 320, 512 and 800, '
        'or of 64, 224, 32, 256 and 384 for a classifier)',
    )
    parser.add_argument('--checkpoint', help='weights for --target (default: random ones)')
    parser.add_argument(
        '--json',
        type=Path,
        metavar='FILE',
        help='write all of it there, too; its image_size is [height, width]',
    )
    return parser.parse_args()


def fault_of(args: argparse.Namespace) -> str:
    """Return what is wrong with options beside each other, and what to write; '' if nothing is."""
    for option, file in (('--json', args.json), ('--plot', args.plot)):
        if file and not file.parent.is_dir():
            return f'{option} {file}: there is no folder {file.parent}'
    if args.plot and args.plot.suffix.lower() not in SUFFIXES:
        return f'--plot {args.plot}: no picture ends so; write one of {", ".join(SUFFIXES)}'
    if args.plot and args.target is None:
        return f'--plot {args.plot}: is of a target; add --target latency=0.6, params=0.5 or so'
    latency = 'latency' in (args.target or {})
    if latency and not args.table:
        return (
            '--target: latency needs --table FILE, the times of the device; adasap latency CONFIG '
            '--out FILE makes it'
        )
    if args.table and not latency:
        return f'--table {args.table}: is for a target of latency; add latency=1 to --target'
    return ''


def target(text: str) -> dict:
    found = {}
    for part in text.split(','):
        resource, _, amount = part.strip().partition('=')
        try:
            found[resource] = float(amount)
        except ValueError:
            if resource != 'latency' or not amount:
                raise argparse.ArgumentTypeError(
                    f'{text!r}: write params=0.4, flops=0.5 or latency=12ms'
                ) from None
            found[resource] = amount
    return found


def examine(args: argparse.Namespace) -> tuple[dict, list[str]]:
    """Return what was found, as plain data, and the lines to print."""
    from ..apis import build_forward, predict_slim_channels
    from ..checkpoint import load_pruned
    from ..integration import find_hooks
    from ..pruning import find_channels

    config, model = build_model(args.config)
    structure = load_pruned(model, args.checkpoint) if args.checkpoint else None
    hook = next(iter(find_hooks(config, 'AdaSAPHook')), {})
    size, source = choose_image(config, model, args.image_size)
    forward = build_forward(model, image_size=size)
    if args.target is None:
        channels, kept = find_channels(model, forward), None
    else:
        asked = {**args.target, 'table': args.table} if args.table else args.target
        options = {
            key: getattr(args, key, None) or hook[key]
            for key in ('round_to', 'max_pruning_ratio', 'solver', 'objective')
            if getattr(args, key, None) is not None or key in hook
        }
        criterion, named = criterion_of(args)
        pruner, kept = predict_slim_channels(model, forward, asked, criterion, **options)
        channels = pruner.channels
    found = {'image_size': size, 'image_size_from': source, **describe(model, channels)}
    lines = []
    if structure is not None:
        was, now = structure['dense']['params'], found['params']
        lines.append(f'the checkpoint has {now:,} of {was:,} parameters ({now / was:.4f})')
    if kept is None:
        return found, [table(found, None), *lines]
    kept = np.array(kept, dtype=np.int64)
    found['dense'] = pruner.dense
    found['slim'] = {
        'channels': (kept * channels.channels_per_unit).tolist(),
        'params': channels.params(kept),
        'flops': channels.flops(kept),
        **latency_of(pruner, kept),
        'importance': named,
        'checkpoint': args.checkpoint,
    }
    slim = found['slim']['channels']
    if args.plot:
        draw(args.plot, args.config, pruner, kept)
    lines = [table(found, slim), *lines, *prediction(found, args.target, hook)]
    return found, [*lines, *latency_lines(pruner, kept)]


def criterion_of(args: argparse.Namespace) -> tuple:
    """Return the criterion of --target, and its name: that of a run, as far as it needs none."""
    from ..pruning import MagnitudeImportance, UniformWidth

    if args.importance is None and 'latency' in args.target:
        return UniformWidth(MagnitudeImportance()), UniformWidth.__name__
    named = args.importance or 'magnitude'
    return named, named


def draw(file: Path, config: str, pruner, kept: np.ndarray) -> None:
    """Write the plot of --plot."""
    scores, _ = pruner.scores()
    masks = pruner.select(pruner.targets)
    resource = pruner.target.resources[0]
    chosen = (pruner.limits.left(resource, kept), importance_kept(scores, masks))
    curve = pareto_points(pruner, scores, resource)
    draw_pareto(file, curve, chosen, resource, f'{Path(config).stem}, {pruner.target}')


def latency_of(pruner, kept: np.ndarray) -> dict:
    """Return milliseconds of the dense and the slim model as plain data; {} without a table."""
    cost = pruner.limits.costs.get('latency')
    if cost is None:
        return {}
    sizes = pruner.channels.group_sizes
    dense, slim = cost.per_call(sizes) / 1e6, cost.per_call(kept) / 1e6
    layers: dict[str, list[float]] = {}
    for call, before, after in zip(cost.calls, dense, slim, strict=True):
        total = layers.setdefault(call.name, [0.0, 0.0])
        total[0] += float(before)
        total[1] += float(after)
    return {
        'latency': {
            'dense_ms': cost(sizes) / 1e6,
            'slim_ms': cost(kept) / 1e6,
            'floor_ms': pruner.floor('latency') * cost(sizes) / 1e6,
            'layers_ms': layers,
        }
    }


def latency_lines(pruner, kept: np.ndarray) -> list[str]:
    """Return a table of the layers that take the longest, and what no cut changes."""
    found = latency_of(pruner, kept).get('latency')
    if found is None:
        return []
    dense, slim, layers = found['dense_ms'], found['slim_ms'], found['layers_ms']
    width = max(map(len, layers))
    lines = ['', f'{"layer".ljust(width)}  dense ms  slim ms']
    longest = sorted(layers, key=lambda name: -layers[name][0])
    for name in longest[:LAYERS_SHOWN]:
        before, after = layers[name]
        lines.append(f'{name.ljust(width)}  {before:8.3f} {after:8.3f}')
    shown = [layers[name] for name in longest[LAYERS_SHOWN:]]
    if shown:
        before, after = (sum(column) for column in zip(*shown, strict=True))
        lines.append(f'{f"{len(shown)} others".ljust(width)}  {before:8.3f} {after:8.3f}')
    if pruner.limits.costs['latency'].has_rest:
        of_layers = (sum(column) for column in zip(*layers.values(), strict=True))
        # Rounding may leave -0.000 of a rest that is 0.
        before, after = (max(a - b, 0.0) for a, b in zip((dense, slim), of_layers, strict=True))
        lines.append(f'{"the rest".ljust(width)}  {before:8.3f} {after:8.3f}')
    device, floor = pruner.target.table.describe(), found['floor_ms']
    return [
        *lines,
        *pruner.limits.notices(),
        *(['the target is met as it is: nothing is removed'] if slim == dense else []),
        f'slim: {slim:.3g} ms of {dense:.3g} ({slim / dense:.4f}), predicted for {device}',
        f'with these settings cutting channels cannot go below {floor:.3g} ms '
        f'({floor / dense:.4f}); decoding and NMS are not counted',
    ]


def prediction(found: dict, limited: dict, hook: dict) -> list[str]:
    """Return lines on the slim model, and on what they hold for."""
    from ..hooks import default_importance

    slim, dense = found['slim'], found['dense']
    weights = 'these weights' if slim['checkpoint'] else 'random weights'
    of = f'{slim["importance"]}, {weights} and one step'
    lines = []
    for resource in ('params', 'flops'):
        left = slim[resource]
        amount = f'{left:,} parameters' if resource == 'params' else f'{left / 1e9:.3f} GFLOPs'
        ratio = f'{left / dense[resource]:.4f} of the dense model'
        holds = '' if resource in limited else f'; for {of} alone'
        lines.append(f'slim: {amount} ({ratio}{holds})')
    by_target = default_importance(limited)
    criterion = (hook.get('importance') or {}).get('type', by_target) if hook else None
    if criterion and slim['importance'].lower() not in str(criterion).lower():
        lines.append(
            f'the hook of the config chooses by {criterion}, and this is {slim["importance"]}: '
            f'other channels will go, and of each group another number'
        )
    names = {'params': 'parameters', 'flops': 'FLOPs'}
    limit = ' and '.join(limited)
    verb = 'comes' if limit == 'latency' else 'come'  # the others are plural alone
    other = ', '.join(name for resource, name in names.items() if resource not in limited)
    others = f'{other} and ' if other else ''
    lines.append(
        f'a training removes in steps from weights that change: its {limit} {verb} out as here, '
        f'its {others}the channels of a group do not'
    )
    return lines


@quiet_on_closed_pipe
def main() -> None:
    args = parse_args()
    program = called_as()
    if fault := fault_of(args):
        sys.exit(f'{program}: {fault}')
    torch.set_num_threads(1)  # one image without arithmetic: more threads only cost time
    torch.manual_seed(0)  # the weights are random, and so is the choice of --target by them
    with quiet_or_exit(args.config):
        found, lines = examine(args)
    if args.json:  # before anything is printed, since the reader of a pipe may have gone then
        try:
            write_atomically(args.json, json.dumps(found, indent=2) + '\n')
        except OSError as error:
            sys.exit(f'{program}: --json {args.json}: {error}')
    print('\n'.join(lines))
    if args.json:
        print(args.json)
