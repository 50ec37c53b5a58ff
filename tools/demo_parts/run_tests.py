# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run mmdet's test.py under one condition after the other, in one process.

A start of test.py costs some 15 seconds of imports; the file is run as it is, once for each
condition, with the arguments of its command line.
"""

import argparse
import json
import runpy
import shutil
import sys
from pathlib import Path


def test(test_py: str, config: str, checkpoint: str, out: Path, options: list[str]) -> float:
    """Run test.py once.

    Args:
        test_py (str): Its path.
        config (str): The config.
        checkpoint (str): The checkpoint.
        out (Path): Folder for its logs; the detections lie beside it, as a .pkl.
        options (list[str]): For ``--cfg-options``.

    Returns:
        float: 'pascal_voc/mAP', which VOCMetric does not round, unlike AP50.
    """
    shutil.rmtree(out, ignore_errors=True)
    sys.argv = [test_py, config, checkpoint, '--work-dir', str(out), '--out', f'{out}.pkl']
    sys.argv += ['--cfg-options', *options]
    runpy.run_path(test_py, run_name='__main__')
    (metrics,) = out.glob('*/*.json')
    return json.loads(metrics.read_text())['pascal_voc/mAP']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('test_py')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('out', type=Path)
    parser.add_argument('--severity', type=int, required=True)
    parser.add_argument('--corruptions', nargs='+', required=True)
    args = parser.parse_args()
    # This folder's names must not come before those of installed packages.
    sys.path.pop(0)
    results = {}
    conditions = ['none', *args.corruptions]
    for number, condition in enumerate(conditions, start=1):
        print(f'condition {number}/{len(conditions)} {condition}', flush=True)
        results[condition] = test(
            args.test_py,
            args.config,
            args.checkpoint,
            args.out / condition,
            [
                f'test_dataloader.dataset.corruption={condition}',
                f'test_dataloader.dataset.severity={args.severity}',
            ],
        )
    # The configs have imported it by now; at the start it would be seconds.
    from mmdet_adasap.files import write_atomically

    write_atomically(args.out / 'map.json', json.dumps(results, indent=2))


if __name__ == '__main__':
    main()
