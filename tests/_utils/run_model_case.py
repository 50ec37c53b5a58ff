# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the tests of whole models share: a process for each, and what is asked of a choice."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASE = Path(__file__).with_name('model_case.py')


def run_case(*arguments: object) -> dict:
    """Run model_case.py; gives what it found."""
    done = subprocess.run(
        [sys.executable, str(CASE), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | dict(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / 'tests')])),
    )
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_choices(choices: list[dict]) -> None:
    """Slim equals masked, and a target is met within 2 % or one unit, or refused."""
    assert len(choices) == 6
    for choice in choices:
        if 'refused' in choice:
            assert choice['least'] > choice['ratio']
            continue
        assert choice['apart'] <= 1e-5
        assert choice['least'] <= choice['left'] <= choice['ratio']
        assert choice['left'] > choice['ratio'] * 0.98 or (
            choice['left'] + choice['step'] > choice['ratio']
        )
