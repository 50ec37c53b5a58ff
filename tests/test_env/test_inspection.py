# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re

import pytest

from _utils.fake_packages import ONEDL, ORIGINAL, pretend
from mmdet_adasap.env import inspection

REFUSES = (
    'AssertionError: MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, <2.2.0.'
)
NO_OPS = "ModuleNotFoundError: No module named 'mmcv._ext'"
UNDEFINED = 'ImportError: mmcv/_ext.so: undefined symbol: _ZN3c1017RegisterOperators'
INSTALL_ORIGINAL = (
    '`pip install openmim`, then `mim install mmcv==2.1.0 --only-binary=mmcv --no-deps`, '
)
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
    def report_of(versions, absent=(), **errors):
        pretend(monkeypatch, versions, absent, **errors)
        return inspection.inspect_environment()

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
            f'`pip uninstall -y mmcv`, then {INSTALL_ORIGINAL}',
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
        (but(ORIGINAL, 'mmcv'), {}, 'mmcv is not installed', INSTALL_ORIGINAL),
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
            f'`pip uninstall -y onedl-mmcv mmcv`, then {INSTALL_ORIGINAL}',
        ),
        (
            but(ORIGINAL, mmcv_lite='2.1.0'),
            {},
            'mmcv is installed twice, as mmcv 2.1.0 and mmcv-lite 2.1.0',
            f'`pip uninstall -y mmcv mmcv-lite`, then {INSTALL_ORIGINAL}',
        ),
        (
            but(ORIGINAL, 'mmengine', onedl_mmengine='0.10.12'),
            {},
            "mixed .mmengine OneDL's, mmcv original",
            '`pip uninstall -y onedl-mmengine`, then `pip install mmengine==0.10.7',
        ),
        (
            but(ONEDL, 'onedl-mmcv', mmcv='2.1.0'),
            {},
            "mixed .mmengine OneDL's, mmcv original",
            f'`pip uninstall -y mmcv`, then {COMPILE_ONEDL}',
        ),
        (
            ORIGINAL,
            dict(mmcv___ext=UNDEFINED, mmcv__ops=UNDEFINED, mmdet__models=UNDEFINED),
            r'mmcv 2\.1\.0 has no working compiled operators .ImportError',
            f'`pip uninstall -y mmcv`, then {INSTALL_ORIGINAL}',
        ),
        (
            but(LITE, mmdet='3.3.0'),
            dict(mmcv___ext=NO_OPS, mmcv__ops=NO_OPS, mmdet__models=NO_OPS, mmdet_adasap=NO_OPS),
            r'mmcv-lite 2\.1\.0 has no working compiled operators',
            f'`pip uninstall -y mmcv-lite`, then {INSTALL_ORIGINAL}',
        ),
        (
            but(ORIGINAL, 'mmdet'),
            dict(mmcv___ext=UNDEFINED, mmcv__ops=UNDEFINED),
            'mmcv 2.1.0 has no working compiled operators',  # it is there and broken
            f'`pip uninstall -y mmcv`, then {INSTALL_ORIGINAL}',
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
    assert named == ['numpy', 'torch', 'torchvision', 'cv2', 'mmengine', 'mmcv']
    assert "`pip install torch==2.1.2 torchvision==0.16.2 'numpy<2'`" in report.problems[1]


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
    crash = inspection.ImportResults(
        {'numpy': '', 'torch': '', 'torchvision': 'it ended Python with SIGSEGV'}
    )
    monkeypatch.setattr(inspection, 'try_imports', lambda names: crash)
    report = inspection.inspect_environment()
    (problem,) = report.problems
    assert 'torchvision is installed but cannot be imported (it ended Python with' in problem
    assert report.notes[-1].startswith('What comes after torchvision was not imported')


class TestWhatFailsIsSaid:
    """No import fails without a problem; what only follows from it is not said once more."""

    ERROR = 'OSError: libcublas.so.12: cannot open shared object file'
    ORDERED = inspection.MODULES

    @pytest.mark.parametrize('versions', [ONEDL, ORIGINAL])
    @pytest.mark.parametrize('index', range(len(inspection.MODULES)))
    def test_with_all_that_comes_after(self, report_of, versions, index):
        failing = self.ORDERED[index:]
        if failing[0] == 'pkg_resources' and versions is ONEDL:
            failing = failing[1:]  # not imported
        report = report_of(versions, **{m.replace('.', '__'): self.ERROR for m in failing})
        # Without a GPU, torch's own failing to find a compiler is a note; then comes torchvision.
        failing = [m for m in failing if m != 'torch.utils.cpp_extension']
        (problem,) = report.problems
        named = {'pkg_resources': 'mmengine', 'mmdet.models': 'mmdet'}
        assert self.ERROR in problem
        assert named.get(failing[0], failing[0].partition('.')[0]) in problem.partition('(')[0]

    @pytest.mark.parametrize('module', inspection.MODULES)
    def test_where_it_ends_python(self, report_of, monkeypatch, module):
        pretend(monkeypatch, ORIGINAL)
        errors = dict.fromkeys(self.ORDERED[: self.ORDERED.index(module)], '')
        errors[module] = 'it ended Python with SIGSEGV'
        results = inspection.ImportResults(errors)
        monkeypatch.setattr(inspection, 'try_imports', lambda names: results)
        (problem,) = inspection.inspect_environment().problems
        assert 'SIGSEGV' in problem

    def test_a_missing_package_that_nobody_needs_explains_nothing(self, report_of):
        error = "ModuleNotFoundError: No module named 'mmpretrain'"
        (problem,) = report_of(but(ORIGINAL, 'mmpretrain'), mmdet__models=error).problems
        assert error in problem
        assert "`pip install mmpretrain==1.2.0 'numpy<2'`" in problem

    def test_operators_that_were_called_unneeded(self, report_of):
        """A note that classifiers need none does not explain why mmpretrain fails."""
        errors = dict(mmcv___ext=NO_OPS, mmcv__ops=NO_OPS, mmpretrain=NO_OPS)
        (problem,) = report_of(LITE, **errors).problems
        assert problem.startswith('mmpretrain is installed but cannot be imported')
        assert f'`pip uninstall -y mmcv-lite`, then {INSTALL_ORIGINAL}' in problem


def test_problems_stand_in_the_order_of_what_needs_what(report_of):
    """Compiling mmcv before torch is mended would be in vain."""
    versions = but(ORIGINAL, 'opencv-python-headless', mmcv_lite='2.1.0', numpy='2.0.1')
    report = report_of(
        versions,
        torch='OSError: libcublas.so.12: cannot open',
        mmcv___ext=UNDEFINED,
        mmpretrain='SyntaxError: invalid syntax',
    )
    named = [re.match(r'torch 2\.1\.2 is compiled|\w+', text)[0] for text in report.problems]
    assert named == ['torch 2.1.2 is compiled', 'torch', 'cv2', 'mmcv', 'mmcv', 'mmpretrain']


@pytest.mark.parametrize(
    ('package', 'module', 'command'),
    [
        ('mmdet__models', 'pycocotools', "`pip install mmdet==3.3.0 'numpy<2'`"),  # it asks for it
        ('mmdet__models', 'sklearn.utils', "`pip install mmdet==3.3.0 'numpy<2'`"),
        ('mmdet__models', 'instaboostfast', "`pip install instaboostfast 'numpy<2'`"),
        ('mmpretrain', 'skimage', "`pip install scikit-image 'numpy<2'`"),
        ('mmcv', 'mmcv.image', INSTALL_ORIGINAL),
        (
            'mmengine',
            'torch.distributed',
            '`pip install --force-reinstall torch==2.1.2`',
        ),
        ('mmdet_adasap', 'jinja2', "`pip install jinja2 'numpy<2'`"),
    ],
)
def test_a_missing_module_is_named(report_of, package, module, command):
    error = f"ModuleNotFoundError: No module named '{module}'"
    (problem,) = report_of(ORIGINAL, **{package: error}).problems
    assert command in problem


def test_a_missing_part_of_another_version(report_of):
    error = "ModuleNotFoundError: No module named 'mmengine.analysis'"
    (problem,) = report_of(but(ORIGINAL, mmengine='0.7.0'), mmdet__models=error).problems
    assert '`pip uninstall -y mmengine`, then `pip install mmengine==0.10.7' in problem


class TestPkgResources:
    """mmengine 0.10.7 reads ``_base_ = 'mmdet::...'`` with it; OneDL's mmengine does not."""

    ERROR = "ModuleNotFoundError: No module named 'pkg_resources'"

    def test_absent(self, report_of):
        (problem,) = report_of(ORIGINAL, absent=['pkg_resources']).problems
        assert "_base_ of another package, as 'mmdet::...'" in problem
        assert "Remedy: `pip install 'setuptools<70'`." in problem

    def test_absent_and_missed_by_others(self, report_of):
        errors = dict(torch__utils__cpp_extension=self.ERROR, mmcv=self.ERROR)
        report = report_of(ORIGINAL, absent=['pkg_resources'], **errors)
        (problem,) = report.problems
        assert "`pip install 'setuptools<70'`" in problem
        assert report.notes == []

    def test_broken(self, report_of):
        (problem,) = report_of(ORIGINAL, pkg_resources='ImportError: jaraco').problems
        assert 'ImportError: jaraco' in problem

    def test_onedl_needs_none(self, report_of):
        assert report_of(ONEDL, absent=['pkg_resources']).problems == []

    def test_onedl_with_a_package_that_needs_it(self, report_of):
        (problem,) = report_of(ONEDL, absent=['pkg_resources'], mmpretrain=self.ERROR).problems
        assert "`pip install 'setuptools>=77,<81'`" in problem


def test_mmcv_without_gpu_operators_is_mended_with_a_wheel(report_of, monkeypatch):
    """Where there is no nvcc, one cannot compile for the GPU."""
    pretend(monkeypatch, ORIGINAL)
    results = inspection.ImportResults(
        dict.fromkeys(inspection.MODULES, ''), gpus=['a GPU'], mmcv_cuda='not available'
    )
    monkeypatch.setattr(inspection, 'try_imports', lambda names: results)
    (note,) = inspection.inspect_environment().notes
    assert f'Remedy: `pip uninstall -y mmcv`, then {INSTALL_ORIGINAL}' in note
    assert 'FORCE_CUDA=1' in note


def test_two_distributions_of_imagecorruptions(report_of):
    both = dict(imagecorruptions='1.1.2', imagecorruptions_imaug='1.1.5')
    report = report_of(but(ORIGINAL, **both))
    (problem,) = report.problems
    assert '`pip uninstall -y imagecorruptions-imaug imagecorruptions`' in problem
    assert report.imagecorruptions == 'imagecorruptions-imaug 1.1.5 and imagecorruptions 1.1.2'
