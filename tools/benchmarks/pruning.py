# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Time how long it takes to find the channels of a detector and to prune it, beside Torch-Pruning.

For each of mmdet's detectors, with random weights and one random image, on one thread:

  forward   seconds of one run of the model, which both tools need
  trace     trace_channels(): the groups of tied channels, from one run
  Pruner    Pruner(...): the same and its proof, half of every group cut from a copy
  event     Pruner.prune_to(): score, choose and mask, to what half of every group leaves
  left      parameters left when half of every group goes, counted after a real cut
  runs      whether the slim model is right (ours: it gives what the masked one gives), or runs
            and returns the dense model's shapes (Torch-Pruning)

Torch-Pruning does the same with its BasePruner, group magnitudes and local ranking, and is told by
hand which layers predict and, where that is not enough, what else to exclude. Both are timed
in turn, from fresh copies, in the same rounds, so that whatever else the machine does falls on
both. Seconds are processor time, the least of all rounds. It makes a graph first and groups out
of that; both are the time to build the groups, which TP/trace and TP/Pruner compare ours with:
how many times as fast it is. TP/both is for graph and event, trace and event together, since
Torch-Pruning's step makes its groups anew.
Without Torch-Pruning its columns are empty; to have them:

  pip install -r requirements/benchmarks.txt

examples:
  python tools/benchmarks/pruning.py                                 # all models, minutes
  python tools/benchmarks/pruning.py --models ssd300 yolox-tiny --repeats 5
  python tools/benchmarks/pruning.py --models faster-rcnn --out pruning.json
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import gc
import importlib.metadata
import json
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from mmdet_adasap.apis import build_dense
from mmdet_adasap.errors import EquivalenceError
from mmdet_adasap.fileio import write_atomically
from mmdet_adasap.models import count_parameters, raw_forward
from mmdet_adasap.pruning import ChannelMasks, MagnitudeImportance, Pruner, trace_channels
from mmdet_adasap.pruning.equivalence import raw_outputs
from mmdet_adasap.pruning.model_state import ForwardFn, output_tensors

PEER = 'torch-pruning'
PEER_GROUPS = ('peer_build', 'peer_groups')
PEER_MISSING = (
    'Torch-Pruning is not installed, so its columns are empty. To compare with it: '
    'pip install -r requirements/benchmarks.txt'
)
ROUND_TO = 8
LIMIT = 30
"""Seconds of processor time after which a round of Torch-Pruning is given up."""


class Detector(NamedTuple):
    """A model of the benchmark.

    Attributes:
        config (str): One of mmdet's configs.
        size (int): Side of the image in pixels.
        predictions (tuple[str, ...]): Patterns of the names of the layers that predict. Ours
            finds them by itself; Torch-Pruning is told.
        helps (tuple[str, ...]): Other layers that Torch-Pruning has to be told to exclude, where
            it does not get by with the layers that predict; found by trial.
    """

    config: str
    size: int
    predictions: tuple[str, ...]
    helps: tuple[str, ...] = ()


FPN = ('neck',)
RPN = ('rpn_head.rpn_cls', 'rpn_head.rpn_reg')
BOXES = ('roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg')
SSD = ('bbox_head.cls_convs.*.0', 'bbox_head.reg_convs.*.0')
YOLOX = ('bbox_head.multi_level_conv_*',)
DETECTORS = {
    'ssd300': Detector('pascal_voc/ssd300_voc0712.py', 300, SSD),
    'ssd512': Detector('pascal_voc/ssd512_voc0712.py', 512, SSD),
    'ssdlite': Detector(
        'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
        320,
        ('bbox_head.cls_convs.*.1', 'bbox_head.reg_convs.*.1'),
    ),
    'yolov3-d53': Detector(
        'yolo/yolov3_d53_8xb8-320-273e_coco.py', 320, ('bbox_head.convs_pred.*',)
    ),
    'yolov3-mobilenetv2': Detector(
        'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', 320, ('bbox_head.convs_pred.*',)
    ),
    'yolox-nano': Detector('yolox/yolox_nano_8xb8-300e_coco.py', 320, YOLOX),
    'yolox-tiny': Detector('yolox/yolox_tiny_8xb8-300e_coco.py', 320, YOLOX),
    'yolox-s': Detector('yolox/yolox_s_8xb8-300e_coco.py', 320, YOLOX),
    'rtmdet-tiny': Detector(
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        320,
        ('bbox_head.rtm_cls.*', 'bbox_head.rtm_reg.*', 'bbox_head.rtm_obj.*'),
    ),
    'retinanet': Detector(
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        320,
        ('bbox_head.retina_cls', 'bbox_head.retina_reg'),
    ),
    'fcos': Detector(
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        320,
        ('bbox_head.conv_cls', 'bbox_head.conv_reg', 'bbox_head.conv_centerness'),
    ),
    'atss': Detector(
        'atss/atss_r50_fpn_1x_coco.py',
        320,
        ('bbox_head.atss_cls', 'bbox_head.atss_reg', 'bbox_head.atss_centerness'),
    ),
    'faster-rcnn': Detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 320, RPN + BOXES, FPN),
    'faster-rcnn-c4': Detector(
        'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py', 320, RPN + BOXES
    ),
    'mask-rcnn': Detector(
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        320,
        (*RPN, *BOXES, 'roi_head.mask_head.conv_logits'),
        FPN,
    ),
    'cascade-rcnn': Detector(
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
        320,
        (*RPN, 'roi_head.bbox_head.*.fc_cls', 'roi_head.bbox_head.*.fc_reg'),
        FPN,
    ),
}


def build(config: str) -> nn.Module:
    """Build the detector of one of mmdet's configs, with random weights and nothing downloaded.

    Every parameter is trained: what is frozen cannot be pruned, and Torch-Pruning, which
    follows gradients, would not see it.
    """
    from mmengine.model import revert_sync_batchnorm

    model = revert_sync_batchnorm(build_dense(f'mmdet::{config}'))
    return randomise(model).requires_grad_(True)


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Randomise weights and statistics: where all channels are alike, no wrong cut would show."""
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.dim() > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    return model


def build_forward(model: nn.Module, size: int) -> ForwardFn:
    """Return a function that runs a detector on one random image."""
    from mmdet.testing import demo_mm_inputs

    data = demo_mm_inputs(1, (3, size, size), use_box_type=True)
    return raw_forward(model.data_preprocessor(data, False))


class Stopwatch:
    """Collects what calls take, under names, over all rounds."""

    def __init__(self) -> None:
        self.times: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, name: str, function: Callable, *args, **kwargs) -> object:
        """Call a function and return what it returns."""
        gc.collect()  # what the call before has left behind
        wall, processor = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        taken = time.perf_counter() - wall, time.process_time() - processor
        self.times.setdefault(name, []).append(taken)
        return result

    @property
    def seconds(self) -> dict[str, float]:
        """The least seconds of processor time under each name."""
        return {name: min(t for _, t in times) for name, times in self.times.items()}


def prune_ours(model: nn.Module, forward: ForwardFn, watch: Stopwatch) -> dict:
    """Run one round of mmdet_adasap: trace, Pruner, two events, and a real cut.

    Args:
        model (nn.Module): The dense model; left as it is.
        forward (Callable): Runs a model and returns its raw outputs.
        watch (Stopwatch): Takes the times 'trace', 'pruner', 'event' and 'event_rounded'.

    Returns:
        dict: ``groups``, ``left`` and ``runs``.
    """
    model = copy.deepcopy(model)
    dense = copy.deepcopy(model.state_dict())
    watch('trace', trace_channels, model, forward)
    pruner = watch('pruner', Pruner, model, forward, dict(params=1.0), MagnitudeImportance())
    sizes = pruner.channels.group_sizes
    half = np.maximum(sizes // 2, 1)
    for name, round_to in (('event_rounded', ROUND_TO), ('event', 1)):
        model.load_state_dict(dense)
        pruner.masks = ChannelMasks(model, pruner.channels.groups)
        pruner.round_to = round_to
        counts = np.minimum(-(-half // round_to) * round_to, sizes)
        watch(name, pruner.prune_to, pruner.channels.params(counts) / pruner.dense['params'])

    # Half of every group, rather than what competes best over all of them.
    model.load_state_dict(dense)
    rng = np.random.default_rng(0)
    kept = [rng.permutation(size) < count for size, count in zip(sizes, half, strict=True)]
    pruner.masks = ChannelMasks(model, pruner.channels.groups)
    pruner.masks.remove(kept)
    promised = pruner.channels.params(pruner.masks.counts)
    pruner.cut()  # raises EquivalenceError unless the slim model gives what the masked one gives
    if count_parameters(model) != promised:
        raise EquivalenceError(f'{count_parameters(model)} parameters are left and not {promised}')
    return {
        'groups': len(sizes),
        'left': count_parameters(model) / pruner.dense['params'],
        'whole': pruner.channels.excluded,
    }


def prune_peer(model: nn.Module, forward: ForwardFn, ignored: list[str], watch: Stopwatch) -> dict:
    """Run one round of Torch-Pruning: build its graph, then one step of half of each group.

    Settings are those of its documentation for a model that is not trained sparsely: BasePruner,
    GroupMagnitudeImportance with p=2, and ``ignored_layers`` for what predicts. Ours does not
    round, so neither does it.

    Args:
        model (nn.Module): The dense model; left as it is.
        forward (Callable): Runs a model and returns its raw outputs.
        ignored (list[str]): Names of the layers that it is told to exclude.
        watch (Stopwatch): Takes the times 'peer_build' (its graph), 'peer_groups' (the groups
            out of it) and 'peer_event'.

    Returns:
        dict: ``left``, and ``error`` if the slim model does not run.
    """
    import torch_pruning as tp

    model = copy.deepcopy(model).eval()
    shapes = [tensor.shape for tensor in raw_outputs(model, forward)]
    before = count_parameters(model)
    pruner = watch(
        'peer_build',
        tp.pruner.BasePruner,
        model,
        example_inputs=None,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[model.get_submodule(name) for name in ignored],
        forward_fn=lambda model, _: forward(model),
        # It follows gradients, and some outputs (fixed proposals, grids) have none.
        output_transform=lambda out: [t for t in output_tensors(out) if t.requires_grad],
    )
    roots = {
        'ignored_layers': pruner.ignored_layers,
        'root_module_types': pruner.root_module_types,
    }
    watch('peer_groups', lambda: list(pruner.DG.get_all_groups(**roots)))
    watch('peer_event', pruner.step)
    result = {'left': count_parameters(model) / before}
    try:
        slim = [tensor.shape for tensor in raw_outputs(model, forward)]
    except Exception as error:
        return {**result, 'error': first_line(error)}
    return result if slim == shapes else {**result, 'error': 'outputs of other shapes'}


def matching(model: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Return the names of the modules that match one of the patterns."""
    names = [name for name, _ in model.named_modules()]
    return [n for n in names if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)]


def limited(function: Callable, *args) -> object:
    """Call a function of Python, and give up after :data:`LIMIT` (not on Windows)."""
    if not hasattr(signal, 'SIGPROF'):
        return function(*args)

    def stop(*_) -> None:
        raise TimeoutError(f'not done after {LIMIT} s')

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        return function(*args)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(run: Callable[[], dict]) -> dict:
    """Return what a round returns, or its error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return run()
    except Exception as error:
        return {'error': first_line(error)}


def first_line(error: Exception) -> str:
    """Return an error in one line."""
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0]}'


def peer_version() -> str | None:
    """Return the version of Torch-Pruning, None where it is not installed."""
    try:
        import torch_pruning  # noqa: F401

        return importlib.metadata.version(PEER)
    except ImportError:
        return None


def measure(
    model: nn.Module,
    forward: ForwardFn,
    predictions: tuple[str, ...] = (),
    helps: tuple[str, ...] = (),
    repeats: int = 3,
    with_peer: bool = True,
) -> dict:
    """Measure one model; what goes wrong in one tool is noted and does not stop the other.

    Args:
        model (nn.Module): The dense model; left as it is.
        forward (Callable): Runs a model and returns its raw outputs.
        predictions (tuple[str, ...]): Patterns of the names of layers that predict.
        helps (tuple[str, ...]): See :class:`Detector`.
        repeats (int): Rounds. Defaults to 3.
        with_peer (bool): Whether to run Torch-Pruning too. Defaults to True.

    Returns:
        dict: ``parameters``, ``seconds`` by name, ``ours`` and ``peer`` with ``left`` or
        ``error``, and ``times`` as pairs of seconds on the clock and of processor time.
    """
    watch = Stopwatch()
    tools: dict[str, Callable[[], dict]] = {'ours': lambda: prune_ours(model, forward, watch)}
    alone = None
    if with_peer:
        ignored = matching(model, predictions)
        if helps:  # what it does with the layers that predict alone is told, not timed
            alone = attempt(lambda: limited(prune_peer, model, forward, ignored, Stopwatch()))
            if 'error' in alone:
                ignored += matching(model, helps)
        tools['peer'] = lambda: limited(prune_peer, model, forward, ignored, watch)
    results: dict[str, dict] = {}
    raw_outputs(model, forward)  # the first run of a model allocates
    for _ in range(repeats):
        watch('forward', raw_outputs, model, forward)
        for tool, run in tools.items():
            results[tool] = attempt(run)
    if alone and 'error' in alone:
        results['peer']['helped'] = f'needs {", ".join(helps)} left whole; else {alone["error"]}'
    return {
        'parameters': count_parameters(model),
        'seconds': watch.seconds,
        **results,
        'times': watch.times,
    }


def ratio(seconds: dict[str, float], peer: tuple[str, ...], ours: tuple[str, ...]) -> float | None:
    """How many times as fast as Torch-Pruning ours is, for the sum of some parts of each."""
    if not seconds.keys() >= {*peer, *ours}:
        return None
    return sum(seconds[key] for key in peer) / sum(seconds[key] for key in ours)


def report(results: dict[str, dict]) -> str:
    """The figures of all models as tables in Markdown."""

    def number(value: float | None, form: str) -> str:
        return '' if value is None else format(value, form)

    def rows_of(result: dict) -> tuple[list[str], list[str]]:
        seconds = result['seconds']
        ours, peer = result.get('ours', {}), result.get('peer', {})
        added = seconds['trace'] - seconds['forward'] if 'trace' in seconds else None
        building = [
            f'{result["parameters"] / 1e6:.2f}',
            *(number(seconds.get(key), '.3f') for key in ('forward', 'trace')),
            number(added, '+.3f'),
            *(number(seconds.get(key), '.3f') for key in ('pruner', *PEER_GROUPS)),
            number(ratio(seconds, PEER_GROUPS, ('trace',)), '.2f'),
            number(ratio(seconds, PEER_GROUPS, ('pruner',)), '.2f'),
        ]
        pruning = [
            *(number(seconds.get(k), '.3f') for k in ('event', 'event_rounded', 'peer_event')),
            number(ratio(seconds, ('peer_event',), ('event',)), '.1f'),
            number(ratio(seconds, ('peer_build', 'peer_event'), ('trace', 'event')), '.2f'),
            number(ours.get('left'), '.3f'),
            number(peer.get('left'), '.3f'),
            *('' if not part else 'no' if 'error' in part else 'yes' for part in (ours, peer)),
        ]
        return building, pruning

    heads = (
        [
            *('M params', 'forward', 'trace', 'added', 'Pruner', 'TP graph', 'TP groups'),
            *('TP/trace', 'TP/Pruner'),
        ],
        [
            *('event', f'event, round_to={ROUND_TO}', 'TP event', 'TP/event', 'TP/both'),
            *('left', 'TP left', 'runs', 'TP runs'),
        ],
    )
    measured = {name: rows_of(result) for name, result in results.items() if 'seconds' in result}
    lines = []
    for part, head in enumerate(heads):
        rows = [['model', *head], *([name, *rows[part]] for name, rows in measured.items())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, ['-' * (widths[0]), *('-' * (w - 1) + ':' for w in widths[1:])])
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append('| ' + ' | '.join(cells) + ' |')
        lines.append('')
    for name, result in results.items():
        parts = {'the model': result, 'ours': result.get('ours', {})}
        parts['Torch-Pruning'] = result.get('peer', {})
        for tool, part in parts.items():
            if 'error' in part:
                lines.append(f'{name}, {tool}: {part["error"]}')
            if 'helped' in part:
                lines.append(f'{name}, {tool}: {part["helped"]}')
        for module, reason in result.get('ours', {}).get('whole', {}).items():
            lines.append(f'{name}, ours: {module} is left whole: {reason}')
    return '\n'.join(lines).rstrip()


def benchmark(names: list[str], repeats: int, version: str | None, out: Path | None) -> dict:
    """Measure models one after the other, with a line for each as it is done.

    Args:
        names (list[str]): Models.
        repeats (int): Rounds of each.
        version (str | None): That of Torch-Pruning, None to go without.
        out (Path | None): Where the figures so far are written after each model.

    Returns:
        dict: The figures of each model.
    """
    results = {}
    figures = {'torch': torch.__version__, 'peer': version, 'repeats': repeats, 'models': results}
    for number, name in enumerate(names, 1):
        config, size, predictions, helps = DETECTORS[name]
        started = time.perf_counter()
        try:
            model = build(config)
            forward = build_forward(model, size)
            result = measure(model, forward, predictions, helps, repeats, bool(version))
            bad = [f'{tool} fails' for tool in ('ours', 'peer') if 'error' in result.get(tool, {})]
        except Exception as error:  # a model that mmdet cannot build or run
            result, bad = {'error': first_line(error)}, [first_line(error)]
        results[name] = {'config': config, 'size': size, **result}
        taken = time.perf_counter() - started
        print(
            f'[{number}/{len(names)}] {name}: {taken:.0f} s {", ".join(bad)}'.rstrip(), flush=True
        )
        if out:
            write_atomically(out, json.dumps(figures, indent=2) + '\n')
    return results


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--models',
        nargs='+',
        choices=DETECTORS,
        default=list(DETECTORS),
        metavar='NAME',
        help=f'which of {", ".join(DETECTORS)} (default: all)',
    )
    parser.add_argument(
        '--repeats', type=int, default=3, metavar='N', help='rounds (default: %(default)s)'
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for all figures')
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f'--repeats must be 1 or more, not {args.repeats}')
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    version = peer_version()
    peer = f'Torch-Pruning (TP) {version}' if version else 'no Torch-Pruning'
    head = f'torch {torch.__version__}, {peer}, one thread, the least of {args.repeats} rounds'
    if version is None:
        print(PEER_MISSING)
    results = benchmark(args.models, args.repeats, version, args.out)
    print(f'\n{head}\n\n{report(results)}')


if __name__ == '__main__':
    main()
