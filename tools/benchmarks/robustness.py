# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Time tools/robustness.py beside mmdet's test_robustness.py, and three models beside one.

The set is made here: crops of 500x375 pixels from two photographs, with random boxes. The model
is that of configs/demo, with random weights. Everything runs in one process on one thread, without
workers, and CPU seconds are counted, so that it does not matter what else the machine does; what
is spent in the model's forward (network and boxes) is taken off and reported beside it.

mmdet's loop is that of its tools/analysis_tools/test_robustness.py: a dataloader built for each
cell, runner.test(), and a pickle. Repaired is what stops it here: the transform Corrupt, which
this mmdet lacks, calls imagecorruptions as mmdet's old one did, and the aggregation at the end,
which cannot read VOC, is left out. `--corrupt ours` gives it this project's corruptions instead,
so that the loop alone differs.

Each is timed on two sets, one twice as large. Their difference is what more images cost; a small
set is mostly start-up.

example:
  python tools/benchmarks/robustness.py --images 16
"""

import argparse
import contextlib
import copy
import io
import json
import logging
import os
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from mmdet_adasap.robustness.benchmark import SEVERITIES

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / 'configs' / 'demo' / 'dense_yolox_tiny-voc.py'
HEIGHT, WIDTH = 375, 500
OBJECTS = 3
ANNOTATION = """<annotation><size><width>{w}</width><height>{h}</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{box[0]}</xmin>
<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=16, help='of the smaller set (default: 16)')
    parser.add_argument(
        '--corrupt',
        choices=('imagecorruptions', 'ours', 'both'),
        default='both',
        help="what mmdet's loop corrupts with (default: both, one after the other)",
    )
    parser.add_argument(
        '--severities', type=int, nargs='+', default=SEVERITIES, help='default: all'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there, too')
    return parser.parse_args()


def make_set(folder: Path, classes: tuple[str, ...], images: int) -> None:
    """Write a VOC test set of crops of photographs."""
    sys.path.append(str(ROOT / 'tools' / 'demo'))
    from builtin_sets.tiny_voc_scenes import load_photo

    rng = np.random.default_rng(0)
    photos = [np.array(load_photo(name)) for name in ('china.jpg', 'flower.jpg')]
    year = folder / 'VOC2007'
    for part in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (year / part).mkdir(parents=True)
    names = [f'{number:06d}' for number in range(images)]
    (year / 'ImageSets' / 'Main' / 'test.txt').write_text('\n'.join(names) + '\n')
    for number, name in enumerate(names):
        photo = photos[number % 2]
        top = rng.integers(0, photo.shape[0] - HEIGHT + 1)
        left = rng.integers(0, photo.shape[1] - WIDTH + 1)
        crop = photo[top : top + HEIGHT, left : left + WIDTH, ::-1]
        cv2.imwrite(str(year / 'JPEGImages' / f'{name}.jpg'), crop)
        objects = ''
        for _ in range(OBJECTS):
            x, y = rng.integers(1, WIDTH - 120), rng.integers(1, HEIGHT - 120)
            box = (x, y, x + rng.integers(40, 120), y + rng.integers(40, 120))
            objects += OBJECT.format(name=classes[rng.integers(len(classes))], box=box)
        text = ANNOTATION.format(w=WIDTH, h=HEIGHT, objects=objects)
        (year / 'Annotations' / f'{name}.xml').write_text(text)


def cpu_seconds() -> float:
    """Of this process and of those that it has started, as mmdet's eval_map does, and seen end."""
    return time.process_time() + sum(os.times()[2:4])


class Forward:
    """The seconds spent in detectors since it was asked last."""

    def __init__(self) -> None:
        from mmdet.models.detectors import BaseDetector

        self.seconds = 0.0
        forward = BaseDetector.forward

        def timed(*args: object, **kwargs: object) -> object:
            start = cpu_seconds()
            try:
                return forward(*args, **kwargs)
            finally:
                self.seconds += cpu_seconds() - start

        BaseDetector.forward = timed

    def time(self, run: Callable[[], object]) -> tuple[float, float]:
        """Seconds outside and inside the models' forward of a call."""
        self.seconds = 0.0
        start = cpu_seconds()
        run()
        whole = cpu_seconds() - start
        return whole - self.seconds, self.seconds


def ours(config: Path, checkpoints: list[Path], severities: list[int], out: Path) -> None:
    from mmdet_adasap.apis import ModelSource, evaluate_robustness

    sources = [ModelSource(file.stem, str(config), str(file)) for file in checkpoints]
    evaluate_robustness(sources, out, severities=severities)


def mmdet_loop(
    config: Path, checkpoint: Path, severities: list[int], out: Path, transform: str
) -> None:
    """The loop of test_robustness.py, in its order."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    from mmdet_adasap.robustness.corruptions import BENCHMARK

    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.load_from = str(out), str(checkpoint)
    cfg.test_dataloader.dataset.test_mode = True
    runner = Runner.from_cfg(cfg)
    results = {}
    for corruption in BENCHMARK:
        results[corruption] = {}
        for severity in [0, *severities]:
            if severity == 0 and len(results) > 1:
                continue
            loader = copy.deepcopy(cfg.test_dataloader)
            if severity:
                step = dict(type=transform, corruption=corruption, severity=severity)
                loader.dataset.pipeline.insert(1, step)
            runner.test_loop.dataloader = runner.build_dataloader(loader)
            results[corruption][severity] = runner.test()
            (out / 'results.pkl').write_bytes(pickle.dumps(results))


def register_corrupt() -> None:
    """The transform that mmdet had: whatever the channels, and numpy's global generator."""
    from imagecorruptions import corrupt
    from mmengine.registry import TRANSFORMS

    @TRANSFORMS.register_module()
    class Corrupt:
        def __init__(self, corruption: str, severity: int) -> None:
            self.corruption, self.severity = corruption, severity

        def __call__(self, results: dict) -> dict:
            image = results['img'].astype(np.uint8)
            results['img'] = corrupt(
                image, corruption_name=self.corruption, severity=self.severity
            )
            return results


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
    logging.disable(logging.NOTSET)


def measure(args: argparse.Namespace, folder: Path, images: int, forward: Forward) -> dict:
    """Seconds (outside, inside the forward) of each way, on a set of so many images."""
    from mmengine.config import Config

    from mmdet_adasap.apis import build_dense

    place = folder / str(images)
    config = place / 'config.py'
    cfg = Config.fromfile(CONFIG)
    make_set(place / 'VOCdevkit', tuple(cfg.classes), images)
    data = f'{place}/VOCdevkit/'
    parts = {
        f'{split}_dataloader': dict(dataset=dict(data_root=data))
        for split in ('train', 'val', 'test')
    }
    text = '\n'.join(f'{key} = {value!r}' for key, value in parts.items())
    config.write_text(f'_base_ = {str(CONFIG)!r}\n{text}\n')
    checkpoints = []
    for number in range(3):
        torch.manual_seed(number)
        checkpoints.append(place / f'model{number}.pth')
        model = build_dense(str(config))
        torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoints[-1])
    found = {}

    def timed(name: str, run: Callable[[Path], object]) -> None:
        out = place / name.replace(' ', '_')
        out.mkdir()
        with quiet():
            found[name] = forward.time(lambda: run(out))
        outside, inside = found[name]
        print(f'{images:5} images  {name:28} {outside:8.1f} s outside, {inside:7.1f} s inside')
        sys.stdout.flush()

    for number, file in enumerate(checkpoints):
        timed(f'one model {number}', lambda out, f=file: ours(config, [f], args.severities, out))
    timed('three models', lambda out: ours(config, checkpoints, args.severities, out))
    for kind, transform in (('imagecorruptions', 'Corrupt'), ('ours', 'ImageCorruption')):
        if args.corrupt in (kind, 'both'):
            timed(
                f'mmdet, {kind}',
                lambda out, t=transform: mmdet_loop(
                    config, checkpoints[0], args.severities, out, t
                ),
            )
    return found


def report(small: dict, large: dict, images: int, cells: int) -> dict:
    """Ratios of whole runs, and of what more images cost."""

    def seconds(name: str, found: dict | None = None) -> tuple[float, float]:
        if found is not None:
            outside, inside = found[name]
        else:
            outside, inside = (b - a for a, b in zip(small[name], large[name], strict=True))
        return outside, outside + inside

    rows = {}
    for title, found in (('whole run', large), ('more images', None)):
        alone = [seconds(f'one model {number}', found) for number in range(3)]
        together = seconds('three models', found)
        rows[f'three models / three runs, {title}'] = tuple(
            together[i] / sum(one[i] for one in alone) for i in (0, 1)
        )
        first = [sum(one[i] for one in alone) / 3 for i in (0, 1)]
        for name in (name for name in large if name.startswith('mmdet')):
            theirs = seconds(name, found)
            rows[f'{name} / one model, {title}'] = tuple(theirs[i] / first[i] for i in (0, 1))
    print(f'\n{"ratio":58} {"outside":>9} {"end to end":>11}')
    for name, (outside, whole) in rows.items():
        print(f'{name:58} {outside:9.2f} {whole:11.2f}')
    each = sum(seconds(f'one model {number}')[0] for number in range(3)) / 3
    print(
        f'\n{1000 * each / images / cells:.1f} ms an image and cell outside the forward, '
        f'{cells} cells'
    )
    return {name: dict(outside=o, end_to_end=w) for name, (o, w) in rows.items()}


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warnings.simplefilter('ignore')
    with quiet():
        import mmdet_adasap  # noqa: F401
        from mmdet_adasap.robustness.corruptions import BENCHMARK

        register_corrupt()
        forward = Forward()
    cells = 1 + len(BENCHMARK) * len(args.severities)
    with tempfile.TemporaryDirectory() as folder:
        small = measure(args, Path(folder), args.images, forward)
        large = measure(args, Path(folder), 2 * args.images, forward)
    found = report(small, large, args.images, cells)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
    main()
