# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re

import pytest

from _utils.fake_packages import ONEDL, ORIGINAL, install_fake, pretend
from mmdet_adasap import inspection

REFUSES = (
    'AssertionError: MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, <2.2.0.'
)
NO_OPS = "ModuleNotFoundError: No module named 'mmcv._ext'"
UNDEFINED = 'ImportError: mmcv/_ext.so: undefined symbol: _ZN3c1017RegisterOperators'
COMPILE_ORIGINAL = (
    "`pip install 'setuptools<70' wheel ninja packaging`, then `MMCV_WITH_OPS=1 pip install "
    '--no-build-isolation --no-cache-dir --no-deps mmcv==2.1.0`'
)
COMPILE_ONEDL = (
    "`pip install 'setuptools>=77,<81' wheel ninja packaging`, then `MMCV_WITH_OPS=1 pip install "
    '--no-build-isolation --no-cache-dir --no-deps onedl-mmcv==2.3.6`'
)
LITE = {k: v for k, v in ORIGINAL.items() if k not in ('mmcv', 'mmdet')} | {'mmcv-lite': '2.1.0'}


def but(versions, *missing, **others):
    """These versions without some, and with others; an underscore stands for a hyphen."""
    others = {name.replace('_', '-'): version for name, version in others.items()}
    return {name: v for name, v in versions.items() if name not in missing} | others


@pytest.fixture
def report_of(monkeypatch):
    def report_of(versions, **errors):
        pretend(monkeypatch, versions, **errors)
        return inspection.inspect()

    return report_of


class TestSound:
    @pytest.mark.parametrize('versions', [ONEDL, ORIGINAL])
    def test_a_whole_family(self, report_of, versions):
        report = report_of(versions)
        assert (report.problems, report.notes) == ([], [])
        assert report.mmcv_ops == 'CPU'

    @pytest.mark.parametrize(
        'versions',
        [LITE, but(ORIGINAL, 'mmdet'), but(ONEDL, 'onedl-mmdetection')],
    )
    def test_classifiers_need_no_operators(self, report_of, versions):
        report = report_of(versions, mmcv___ext=NO_OPS, mmcv__ops=NO_OPS)
        assert report.problems == []
        (note,) = report.notes
        assert 'Classifiers need none' in note
        compiles = COMPILE_ONEDL if 'onedl-mmcv' in versions else COMPILE_ORIGINAL
        assert compiles in note
        assert report.mmcv_ops == 'none'

    @pytest.mark.parametrize('torch', ['2.6.0', '2.11.0+cpu'])
    def test_mmengine_that_cannot_read_its_checkpoints(self, report_of, torch):
        report = report_of(but(ORIGINAL, torch=torch))
        assert report.problems == []
        (note,) = report.notes
        assert note.startswith('mmengine 0.10.7 cannot read its own training checkpoints with t')
        assert 'issues 1650 and 1655' in note
        assert "without custom_imports = dict(imports=['mmdet_adasap'])" in note

    @pytest.mark.parametrize('torch', ['2.5.1', '2.1.2'])
    def test_older_torch_reads_all(self, report_of, torch):
        assert report_of(but(ORIGINAL, torch=torch)).notes == []


@pytest.mark.parametrize(
    ('versions', 'errors', 'problem', 'command'),
    [
        (
            but(ORIGINAL, mmcv='2.2.0'),
            dict(mmdet__models=REFUSES, mmdet_adasap=REFUSES),
            r'mmdet 3\.3\.0 refuses mmcv 2\.2\.0 .* issue 11763',
            f'`pip uninstall -y mmcv`, then {COMPILE_ORIGINAL}',
        ),
        (
            but(ORIGINAL, mmdet='3.0.0'),
            dict(mmdet__models=REFUSES.replace('2.2.0', '2.1.0')),
            r'mmdet 3\.0\.0 refuses mmcv 2\.1\.0 ',
            "--no-deps 'mmcv>=2.0.0rc4,<2.1.0'`",
        ),
        (
            but(ORIGINAL, mmdet='2.28.2'),
            dict(mmdet__models=REFUSES.replace('<2.2.0', '<=1.8.0')),
            r'mmdet 2\.28\.2 refuses mmcv ',
            "`pip uninstall -y mmdet`, then `pip install mmdet==3.3.0 'numpy<2'`",
        ),
        (but(ORIGINAL, 'mmcv'), {}, 'mmcv is not installed', COMPILE_ORIGINAL),
        (but(ONEDL, 'onedl-mmcv'), {}, 'mmcv is not installed', COMPILE_ONEDL),
        (
            but(ORIGINAL, 'mmengine'),
            dict(mmcv="ModuleNotFoundError: No module named 'mmengine'"),
            'mmengine is not installed',
            "`pip install mmengine==0.10.7 'numpy<2' 'opencv-python<4.12'`",
        ),
        (
            but(ONEDL, 'onedl-mmengine'),
            {},
            'mmengine is not installed',
            '`pip install onedl-mmengine==0.10.12`',
        ),
        (
            but(ORIGINAL, 'mmdet', 'mmpretrain'),
            {},
            'Neither mmdet nor mmpretrain',
            "`pip install mmdet==3.3.0 'numpy<2'`",
        ),
        (
            but(ONEDL, 'onedl-mmdetection', 'onedl-mmpretrain'),
            {},
            'Neither mmdet nor mmpretrain',
            'then `pip install --no-build-isolation onedl-mmdetection==3.5.1`',
        ),
        (
            but(ORIGINAL, 'torchvision'),
            dict(mmdet__models="ModuleNotFoundError: No module named 'torchvision'"),
            'torchvision is not installed',
            "`pip install torchvision torch==2.1.2 'numpy<2'`",
        ),
        (
            but(ORIGINAL, 'torchvision', torch='2.4.0+cpu'),
            {},
            'torchvision is not installed',
            '`pip install torchvision torch==2.4.0` with the --index-url that torch 2.4.0+cpu',
        ),
        (
            but(ORIGINAL, 'numpy'),
            dict(torchvision="ModuleNotFoundError: No module named 'numpy'"),
            'numpy is not installed',
            "`pip install 'numpy<2'`",
        ),
        (
            but(ORIGINAL, numpy='2.2.6', opencv_python_headless='4.12.0.88'),
            {},
            r'torch 2\.1\.2 is compiled for numpy 1, and numpy 2\.2\.6',
            "`pip install 'numpy<2' 'opencv-python-headless<4.12'`",
        ),
        (
            but(ONEDL, torch='2.2.0'),
            {},
            r'torch 2\.2\.0 is compiled for numpy 1',
            "`pip install 'numpy<2' 'opencv-python-headless<4.12'`",
        ),
        (
            but(ORIGINAL, onedl_mmcv='2.3.6'),
            {},
            'mmcv is installed twice, as onedl-mmcv 2.3.6 and mmcv 2.1.0',
            f'`pip uninstall -y onedl-mmcv mmcv`, then {COMPILE_ORIGINAL}',
        ),
        (
            but(ORIGINAL, mmcv_lite='2.1.0'),
            {},
            'mmcv is installed twice, as mmcv 2.1.0 and mmcv-lite 2.1.0',
            f'`pip uninstall -y mmcv mmcv-lite`, then {COMPILE_ORIGINAL}',
        ),
        (
            but(ORIGINAL, 'mmengine', onedl_mmengine='0.10.12'),
            {},
            'mixed .mmengine onedl, mmcv original',
            '`pip uninstall -y onedl-mmengine`, then `pip install mmengine==0.10.7',
        ),
        (
            but(ONEDL, 'onedl-mmcv', mmcv='2.1.0'),
            {},
            'mixed .mmengine onedl, mmcv original',
            f'`pip uninstall -y mmcv`, then {COMPILE_ONEDL}',
        ),
        (
            ORIGINAL,
            dict(mmcv___ext=UNDEFINED, mmcv__ops=UNDEFINED, mmdet__models=UNDEFINED),
            r'mmcv 2\.1\.0 has no working compiled operators .ImportError',
            f'`pip uninstall -y mmcv`, then {COMPILE_ORIGINAL}',
        ),
        (
            but(LITE, mmdet='3.3.0'),
            dict(mmcv___ext=NO_OPS, mmcv__ops=NO_OPS, mmdet__models=NO_OPS, mmdet_adasap=NO_OPS),
            r'mmcv-lite 2\.1\.0 has no working compiled operators',
            f'`pip uninstall -y mmcv-lite`, then {COMPILE_ORIGINAL}',
        ),
        (
            but(ORIGINAL, 'mmdet'),
            dict(mmcv___ext=UNDEFINED, mmcv__ops=UNDEFINED),
            'mmcv 2.1.0 has no working compiled operators',  # it is there and broken
            f'`pip uninstall -y mmcv`, then {COMPILE_ORIGINAL}',
        ),
        (
            ORIGINAL,
            dict(mmdet__models="ModuleNotFoundError: No module named 'pycocotools'"),
            'mmdet is installed but cannot be imported .ModuleNotFoundError',
            "`pip install mmdet==3.3.0 'numpy<2'`",
        ),
        (
            ONEDL,
            dict(mmpretrain='SyntaxError: invalid syntax'),
            'mmpretrain is installed but cannot be imported .SyntaxError',
            '--force-reinstall --no-deps --no-build-isolation onedl-mmpretrain==1.3.6`',
        ),
        (
            but(ORIGINAL, 'opencv-python-headless', opencv_python='4.11.0.86'),
            dict(cv2='ImportError: libGL.so.1: cannot open shared object file'),
            'cv2 is installed but cannot be imported .*libGL',
            "`pip uninstall -y opencv-python`, then `pip install 'opencv-python-headless<4.12' ",
        ),
        (
            ORIGINAL,
            dict(
                mmdet_adasap="AttributeError: module 'numpy._core' has no attribute 'multiarray'"
            ),
            r"mmdet_adasap cannot be imported \(AttributeError: module 'numpy._core' has no",
            'docs/versions.md',
        ),
    ],
)
def test_one_problem_with_its_remedy(report_of, versions, errors, problem, command):
    report = report_of(versions, **errors)
    (text,) = report.problems
    said, _, advice = text.partition('Remedy: ')
    assert re.search(problem, said)
    assert command in advice
    fork = sum(name.startswith('onedl-') for name in versions) >= 2
    installs = ' '.join(re.findall(r'pip install[^`]*', advice))
    assert fork or 'onedl' not in installs
    assert not fork or not re.search(r'(?<!-)\bmm(engine|cv|det|pretrain)[=<>]', installs)


def test_remedies_stand_in_the_order_in_which_they_are_run(report_of):
    """torch before what is compiled with it, mmengine before mmcv, whose packages it brings."""
    report = report_of({'mmdet': '3.3.0'})
    named = [text.partition(' ')[0] for text in report.problems]
    assert named == ['torch', 'torchvision', 'numpy', 'cv2', 'mmengine', 'mmcv']
    assert "`pip install torch==2.1.2 torchvision==0.16.2 'numpy<2'`" in report.problems[0]


def test_numpy_2_beside_a_torch_that_takes_it_is_a_note(report_of):
    report = report_of(but(ORIGINAL, torch='2.4.1', numpy='2.0.2'))
    assert report.problems == []
    assert 'mmdet_adasap tests them with numpy 1.26' in report.notes[0]


def test_setuptools_that_torch_cannot_compile_with(report_of):
    error = "ImportError: cannot import name 'packaging' from 'pkg_resources'"
    report = report_of(ORIGINAL, torch__utils__cpp_extension=error)
    assert report.problems == []
    assert "`pip install 'setuptools<70'`" in report.notes[0]


def test_what_comes_after_a_crash_is_not_called_sound(report_of, monkeypatch):
    pretend(monkeypatch, ORIGINAL)
    crash = inspection.Trial({'torch': '', 'torchvision': 'it ended Python with SIGSEGV'})
    monkeypatch.setattr(inspection, 'try_imports', lambda names: crash)
    report = inspection.inspect()
    (problem,) = report.problems
    assert 'torchvision is installed but cannot be imported (it ended Python with' in problem
    assert report.notes[-1].startswith('What comes after torchvision was not imported')


class TestLiveImagecorruptions:
    DIGEST = 'uU0nuZNNPgilLlLX2n2r-sSE7-N6U4DukIj3rOLvzek'  # sha256 of 'hello world'

    @pytest.mark.parametrize('live', inspection.IMAGECORRUPTIONS)
    def test_tells_by_the_recorded_hash(self, tmp_path, monkeypatch, live):
        folder = tmp_path / 'imagecorruptions'
        folder.mkdir()
        (folder / '__init__.py').touch()
        (folder / 'corruptions.py').write_text('hello world')
        for name in inspection.IMAGECORRUPTIONS:
            digest = self.DIGEST if name == live else 'other'
            record = [f'imagecorruptions/corruptions.py,sha256={digest},11']
            install_fake(tmp_path, name, '1.0', record)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(inspection, 'package_folder', lambda name: tmp_path / name)
        assert inspection.live_imagecorruptions() == f'{live} 1.0'
