# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Look at the environment: what is installed, whether it imports, and what does not go together.

Works where torch, mmengine, mmcv or mmdet are missing or broken. docs/versions.md has the
environments that were tested.
"""

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec

from ..distributions import FORKS, IMAGECORRUPTIONS, ORIGINALS, installed, release
from ..version import __version__
from .import_trial import PACKAGE, ImportResults, try_imports
from .remedies import Remedies, is_for_numpy_1, missing_module, uninstall

# mmdet/__init__.py imports next to nothing; what fails lies in its parts.
IMPORTED_INSTEAD = {'mmdet': 'mmdet.models'}
"""The module that is imported to test a package, by package, where ``import package`` would not
find what is broken."""

MODULES = ('numpy', 'torch', 'pkg_resources', 'torch.utils.cpp_extension', 'torchvision', 'cv2')
MODULES += ('mmengine', 'mmcv', 'mmcv._ext', 'mmcv.ops', 'mmdet.models', 'mmpretrain', PACKAGE)
"""The modules that are imported, in this order: each one after those that it needs."""

ORDER = list(dict.fromkeys(module.partition('.')[0] for module in MODULES))
"""The packages in the order in which their problems are mended."""

FAMILIES = {'onedl': "OneDL's", 'original': 'original', 'both': 'BOTH'}
"""What the families of packages are called, by ``Package.family``."""


@dataclass
class Package:
    """One import name: which distributions provide it, and whether it imports.

    Args:
        name (str): The import name.
        distributions (dict[str, str]): Versions of the distributions that install it.
        family (str): 'onedl', 'original', 'both', or '' where there is only one.
        error (str): What its import raised; '' if it imports or was not tried.
    """

    name: str
    distributions: dict[str, str]
    family: str = ''
    error: str = ''

    @property
    def version(self) -> str:
        """Its version; of several distributions all versions, and '' if pip knows of none."""
        return ' and '.join(self.distributions.values())

    @property
    def label(self) -> str:
        """Its distributions with their versions, for a sentence."""
        return ' and '.join(f'{dist} {number}' for dist, number in self.distributions.items())


@dataclass
class Report:
    """All that ``python -m mmdet_adasap.env`` prints, as plain data."""

    python: str
    mmdet_adasap: str
    family: str = ''
    packages: dict[str, Package] = field(default_factory=dict)
    mmcv_ops: str = 'none'
    gpus: list[str] = field(default_factory=list)
    imagecorruptions: str = 'none'
    tools: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Problems:
    """What is wrong, and which errors of imports that explains.

    An error is explained only by a problem that was added. So no error can be left out as said
    already when nobody has said it.
    """

    def __init__(self):
        self._texts: list[tuple[int, str]] = []
        self._modules: set[str] = set()
        self._errors: set[str] = set()

    def add(self, package: str, text: str, errors: Iterable[str] = ()) -> None:
        """Add a problem.

        Args:
            package (str): The package that is to be mended, of ORDER; others come last.
            text (str): What is wrong, and what helps.
            errors (Iterable[str]): What imports raised for this reason. Defaults to none.
        """
        place = ORDER.index(package) if package in ORDER else len(ORDER)
        self._texts.append((place, text))
        self.add_errors(errors)

    def add_errors(self, errors: Iterable[str]) -> None:
        """Let what was added explain further errors."""
        self._errors.update(filter(None, errors))

    def blame(self, module: str) -> None:
        """Let a module that is reported, or a package, explain that others do not find it."""
        self._modules.add(module)

    def explain(self, error: str) -> bool:
        """Return whether an error only follows from a problem that was added."""
        missing = missing_module(error)
        is_blamed = not self._modules.isdisjoint((missing, missing.partition('.')[0]))
        return is_blamed or error in self._errors

    def sorted(self) -> list[str]:
        """Return the texts in the order in which the problems are mended."""
        return [text for _, text in sorted(self._texts, key=lambda found: found[0])]


class Inspection:
    """One look at the environment, and what it found.

    Args:
        remedies (Remedies): The commands for this environment.
        names (list[str]): Those of MODULES that were to be imported.
        results (ImportResults): What came of importing them.
    """

    def __init__(self, remedies: Remedies, names: list[str], results: ImportResults):
        self.remedies = remedies
        self.results = results
        self.is_stopped = bool(names) and names[-1] not in results.errors
        self.problems = Problems()
        self.report = Report(platform.python_version(), __version__, remedies.family)
        self.report.gpus = results.gpus
        both = installed(IMAGECORRUPTIONS).items()
        self.report.imagecorruptions = ' and '.join(map(' '.join, both)) or 'none'

    def inspect_packages(self) -> None:
        """Fill in the packages, and say which are missing, or installed more than once."""
        for name, found in self.remedies.found.items():
            package = self.report.packages[name] = Package(name, found)
            if name in FORKS:
                families = [
                    family
                    for family, table in (('onedl', FORKS), ('original', ORIGINALS))
                    if set(table[name]) & found.keys()
                ]
                package.family = 'both' if len(families) > 1 else ''.join(families)
            if find_spec(name) is None:
                if name not in ('mmdet', 'mmpretrain'):
                    text = f'{name} is not installed. Remedy: {self.remedies.install(name)}'
                    self.problems.add(name, text)
                    self.problems.blame(name)
                continue
            if name in FORKS and len(found) > 1:
                self.problems.add(
                    name,
                    f'{name} is installed twice, as {package.label}, in one folder: what runs is '
                    f'a mixture. Remedy: {uninstall(*found)}, then {self.remedies.install(name)}',
                )
            package.error = self.results.errors.get(IMPORTED_INSTEAD.get(name, name), '')
        if all(find_spec(name) is None for name in ('mmdet', 'mmpretrain')):
            self.problems.add(
                'mmdet',
                'Neither mmdet nor mmpretrain is installed. Remedy: '
                f'{self.remedies.install("mmdet")}',
            )

    def inspect_families(self) -> None:
        """Report packages of both families; one that is of both itself is reported already."""
        packages = self.report.packages.values()
        others = [p for p in packages if p.family not in ('', 'both', self.report.family)]
        if not others:
            return
        listed = ', '.join(f'{p.name} {FAMILIES[p.family]}' for p in packages if p.family)
        distributions = [name for package in others for name in package.distributions]
        commands = ' Then '.join(self.remedies.install(package.name) for package in others)
        self.problems.add(
            others[0].name,
            f"OneDL's packages and the original packages are mixed ({listed}). Remedy: "
            f'{uninstall(*distributions)}, then {commands} What else is listed may come of this: '
            f'look again then.',
        )

    def inspect_versions(self) -> None:
        """Report what does not go together with the version of torch."""
        packages = self.report.packages
        torch, numpy, mmengine = (packages[n].version for n in ('torch', 'numpy', 'mmengine'))
        if release(numpy) >= (2,) and is_for_numpy_1(torch):
            self.problems.add(
                'numpy',
                f'torch {torch} is compiled for numpy 1, and numpy {numpy} is installed: tensors '
                f'and arrays cannot be converted. Remedy: {self.remedies.use_numpy_1()}',
            )
        elif release(numpy) >= (2,) and self.report.family == 'original':
            self.report.notes.append(
                f'The original packages are older than numpy {numpy}; mmdet_adasap tests them '
                f'with numpy 1.26. If one fails: {self.remedies.use_numpy_1()}'
            )
        # torch.load reads plain data alone by default from 2.6 on; mmengine says so itself from
        # 0.10.8, which is OneDL's.
        if release(torch) >= (2, 6) and () < release(mmengine) <= (0, 10, 7):
            self.report.notes.append(
                f'mmengine {mmengine} cannot read its own training checkpoints with torch {torch} '
                '(open-mmlab/mmengine issues 1650 and 1655). Importing mmdet_adasap mends it: '
                "without custom_imports = dict(imports=['mmdet_adasap']) in the config, test.py "
                'and --resume fail.'
            )

    def inspect_imports(self) -> None:
        """Report what does not import, and not again what only follows from it."""
        if needs_pkg_resources(self.remedies) and find_spec('pkg_resources') is None:
            self._report_pkg_resources("No module named 'pkg_resources'")
        failed = set()
        for module, error in self.results.errors.items():
            name = module.partition('.')[0]
            if not error:
                continue
            if name in failed and module not in IMPORTED_INSTEAD.values():
                # Of a part of a package that is reported, or that follows from what is: what is
                # imported next may raise the part's error as its own.
                self.problems.add_errors([error])
            elif not self.problems.explain(error):
                self._report_import(module, error)
            if module in (name, IMPORTED_INSTEAD.get(name)):
                failed.add(name)
                self.problems.blame(name)
        if self.is_stopped:
            last = list(self.results.errors)[-1]
            self.report.notes.append(
                f'What comes after {last} was not imported; it may fail, too.'
            )

    def _report_import(self, module: str, error: str) -> None:
        """Report a module that cannot be imported, for a reason that is not reported yet."""
        name = module.partition('.')[0]
        if module == 'pkg_resources':
            self._report_pkg_resources(error)
        elif module == 'torch.utils.cpp_extension':
            self._report_compiler(error)
        elif module in ('mmcv._ext', 'mmcv.ops'):
            self._report_operators(module, error)
        elif name == PACKAGE:
            missing = missing_module(error)
            command = (
                self.remedies.complete(PACKAGE, missing)
                if missing
                else (
                    'first what else is listed here; where there is nothing else, the versions of '
                    'docs/versions.md.'
                )
            )
            text = f'{PACKAGE} cannot be imported ({error}). Remedy: {command}'
            self.problems.add(PACKAGE, text, [error])
        else:
            self.problems.add(name, self._describe_import(name, error), [error])

    def _describe_import(self, name: str, error: str) -> str:
        """Say what is wrong with a package that cannot be imported, and what helps."""
        refused = self.remedies.refused_version(name, error)
        if refused is not None:
            other, version, command = refused
            issue = ' See open-mmlab/mmdetection issue 11763.' if name == 'mmdet' else ''
            own = self.report.packages[name].version
            return f'{name} {own} refuses {other} {version} ({error}).{issue} Remedy: {command}'
        missing = missing_module(error)
        if missing and missing != name:
            command = self.remedies.complete(name, missing)
        else:
            command = self.remedies.reinstall(name)
        return f'{name} is installed but cannot be imported ({error}). Remedy: {command}'

    def _report_pkg_resources(self, error: str) -> None:
        """Report that mmengine will not find the configs of other packages."""
        mmengine = self.report.packages['mmengine'].version
        self.problems.add(
            'pkg_resources',
            f"mmengine {mmengine} reads each _base_ of another package, as 'mmdet::...', with "
            f'pkg_resources, and that cannot be imported ({error}). Remedy: '
            f'{self.remedies.install("setuptools")}',
            [error],
        )
        self.problems.blame('pkg_resources')

    def _report_compiler(self, error: str) -> None:
        """Report that torch cannot compile extensions: only GPUs need that to train."""
        torch = self.report.packages['torch'].version
        text = (
            f'torch {torch} does not find what it compiles with ({error}), nor will mmcv; on a '
            f'GPU no training starts. Remedy: {self.remedies.install("setuptools")}'
        )
        if self.report.gpus or self.is_stopped:
            self.problems.add('torch', text, [error])
        else:
            self.report.notes.append(text)

    def _report_operators(self, module: str, error: str) -> None:
        """Report that mmcv has no compiled operators that work."""
        errors = self.results.errors
        if module == 'mmcv.ops' and errors['mmcv._ext']:
            return  # mmcv.ops hides the error of the compiled part behind one of its own
        what = self.report.packages['mmcv'].label or 'mmcv'
        text = f'{what} has no working compiled operators ({error}): no NMS, no RoIAlign.'
        command = self.remedies.reinstall('mmcv')
        # A part that is there and does not load would fail later; one that is not there is not
        # missed by classifiers, which import it where they need it.
        is_absent = missing_module(error) == 'mmcv._ext'
        is_missed = find_spec('mmdet') is not None or find_spec('mmpretrain') is None
        if is_absent and not is_missed:
            self.report.notes.append(f'{text} Classifiers need none. For detectors: {command}')
            return
        self.problems.add('mmcv', f'{text} Remedy: {command}', [error, errors.get('mmcv.ops', '')])
        if is_absent:
            self.problems.blame('mmcv._ext')

    def inspect_operators(self) -> None:
        """Fill in which operators of mmcv work, and note that a GPU has none."""
        cuda = self.results.mmcv_cuda
        if not cuda or any(self.results.errors.get(name) for name in ('mmcv._ext', 'mmcv.ops')):
            return
        self.report.mmcv_ops = 'CPU' if cuda == 'not available' else f'CPU and CUDA {cuda}'
        if self.report.gpus and self.report.mmcv_ops == 'CPU':
            self.report.notes.append(
                'There is a GPU, but mmcv was compiled for the CPU alone: its operators refuse '
                f'GPU tensors. Remedy: {self.remedies.reinstall("mmcv")} If you compile it, '
                'install nvcc and set FORCE_CUDA=1 as well.'
            )

    def inspect_shared_folders(self) -> None:
        """Report distributions that have overwritten each other."""
        both = installed(IMAGECORRUPTIONS)
        if len(both) > 1:
            self.problems.add(
                'imagecorruptions',
                f'{" and ".join(both)} are both installed, in one folder: what runs is that which '
                f'was installed last. Remedy: {uninstall(*IMAGECORRUPTIONS)}, then '
                '`pip install --no-deps imagecorruptions-imaug`.',
            )
        elif 'imagecorruptions' in both:
            self.report.notes.append(
                f'{self.report.imagecorruptions} fails with current numpy and scikit-image; '
                'imagecorruptions-imaug works. mmdet_adasap runs neither; frost takes its '
                'photographs from whichever is there.'
            )
        cv2 = self.report.packages['cv2'].distributions
        if len(cv2) > 1:
            self.report.notes.append(
                f'{" and ".join(cv2)} are installed in one folder. If cv2 fails: '
                f'{self.remedies.reinstall("cv2")}'
            )
        if self.results.ssd_mended:
            self.report.notes.append(
                "SSDHead of this mmdet cannot predict ('loss_cls' is missing); importing "
                'mmdet_adasap mends it.'
            )


def inspect_environment() -> Report:
    """Look at the environment.

    Returns:
        Report: What is installed, and what is wrong with it; without mmdet's tools.
    """
    remedies = Remedies.of_this_environment()
    # Those that are missing are known without a trial.
    names = [name for name in MODULES if find_spec(name.partition('.')[0]) is not None]
    if not needs_pkg_resources(remedies):
        names = [name for name in names if name != 'pkg_resources']
    inspection = Inspection(remedies, names, try_imports(names))
    inspection.inspect_packages()
    inspection.inspect_families()
    inspection.inspect_versions()
    inspection.inspect_imports()
    inspection.inspect_operators()
    inspection.inspect_shared_folders()
    inspection.report.problems = inspection.problems.sorted()
    return inspection.report


def needs_pkg_resources(remedies: Remedies) -> bool:
    """Return whether mmengine imports pkg_resources: OneDL's does not, the original one does."""
    return find_spec('mmengine') is not None and not (
        set(FORKS['mmengine']) & remedies.found['mmengine'].keys()
    )
