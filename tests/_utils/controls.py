# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The controls of a model as configs/README.md tells to make them: a file, or options."""

import re
import shlex
import shutil
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / 'configs'
ARMS = ('plain', 'sam', 'asam', 'adaptive')


def control_name(adasap: Path, arm: str) -> str:
    return f'control-{arm}_{adasap.name.removeprefix("adasap_")}'


def control_text(adasap: Path, arm: str) -> str:
    """The two lines of a control, without comments."""
    return (
        f"_base_ = ['./{adasap.name}', '../_base_/control_{arm}.py']\n"
        'default_hooks = dict(adasap=_base_.control)\n'
    )


def copy_with_controls(folder: Path) -> Path:
    """A copy of configs/ in which every model has a file for each control."""
    copy = shutil.copytree(CONFIGS, folder / 'configs')
    for adasap in copy.rglob('adasap_*.py'):
        if adasap.parent.name != 'demo':
            for arm in ARMS:
                file = adasap.with_name(control_name(adasap, arm))
                if not file.exists():
                    file.write_text(control_text(adasap, arm))
    return copy


def plain_command(adasap: Path) -> list[str]:
    """Config and options of train.py for plain training, from the README beside a config."""
    readme = (adasap.parent / 'README.md').read_text().replace('\\\n', ' ')
    lines = re.findall(r'^python "\$TRAIN" (configs/.*perturbation=None.*)$', readme, re.MULTILINE)
    (found,) = [
        line for line in lines if line.startswith(f'configs/{adasap.parent.name}/{adasap.name} ')
    ]
    return shlex.split(found)
