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
    # mmpretrain). Asking for one here would overwrite the other, so each is an extra.
    install_requires=['jinja2', 'numpy', 'torch>=2.1'],
    extras_require={
        'onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3.6',
            'onedl-mmdetection>=3.5.1',
            'onedl-mmpretrain>=1.3.6',
        ],
        'openmmlab': [
            'mmengine>=0.10.7',
            'mmcv>=2.0.0,<2.2.0',
            'mmdet>=3.3.0',
            'mmpretrain>=1.2.0',
            'numpy<2',
        ],
        'export': ['onnx', 'onnxruntime'],
        'demo': ['scikit-learn', 'scikit-image', 'matplotlib'],
        'tests': ['pytest', 'pytest-xdist', 'pytorch_optimizer', 'tensorboard'],
        'lint': ['ruff', 'import-linter'],
    },
)
