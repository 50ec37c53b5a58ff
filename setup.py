# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r"__version__ = '(.+)'", (ROOT / 'mmdet_adasap' / 'version.py').read_text()
).group(1)

setup(
    name='mmdet_adasap',
    version=VERSION,
    description='AdaSAP: train, prune and test robust detectors with MMDetection',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmdet_adasap', 'mmdet_adasap.*']),
    package_data={
        'mmdet_adasap.robustness.datasets': ['*.txt'],
        'mmdet_adasap.robustness.report': ['templates/*'],
    },
    entry_points={'console_scripts': ['adasap=mmdet_adasap.cli.main:main']},
    python_requires='>=3.10,<3.13',
    # OpenMMLab and OneDL, its continuation, install into the same folders (mmengine, mmcv, mmdet,
    # mmpretrain): asking for one here would overwrite the other. Nor is either an extra: pip
    # builds mmcv where it sees no torch, so that it comes without operators, or not at all.
    # docs/versions.md has the commands.
    install_requires=['jinja2', 'numpy', 'scipy', 'torch>=2.1'],
    extras_require={
        'export': ['onnx', 'onnxruntime'],
        'demo': ['scikit-learn', 'scikit-image', 'matplotlib'],
        'tests': ['pytest', 'pytest-xdist', 'pytorch_optimizer', 'tensorboard'],
        'lint': ['ruff', 'import-linter'],
    },
)
