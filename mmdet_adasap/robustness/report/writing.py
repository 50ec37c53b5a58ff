# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from pathlib import Path

from ...fileio import write_atomically
from .cells import CellFiles
from .markdown import markdown
from .page import page
from .reading import Results, read_results
from .rows import comma_separated


def write_report(folder: str | Path) -> Path:
    """Write report.html, report.md and report.csv beside the results.json of a run.

    The run may be going on: what is missing is said. The page needs no other file and no network;
    example images of detectors are corrupted again, as the run did it, and those of classifiers
    are read from examples/.

    Args:
        folder (str | Path): Where results.json and cells/ are, as
            :mod:`mmdet_adasap.robustness.results` describes them.

    Returns:
        Path: report.html.

    Raises:
        FileNotFoundError: If there is no results.json.
        MalformedResultsError: Naming the file and the key, if something there is not what
            robustness.py writes.
        OSError: If a file cannot be written.
    """
    results = read_results(Path(folder) / 'results.json')
    return write_files(results, CellFiles(results), Path(folder))


def write_files(
    results: Results, files: CellFiles, out: Path, notes: tuple[str, ...] = ()
) -> Path:
    """Write the three files of a report into a folder that is there.

    Args:
        results (Results): What it is about.
        files (CellFiles): The cells.
        out (Path): The folder.
        notes (tuple[str, ...]): What is to stand at the top besides what is missing.

    Returns:
        Path: report.html.
    """
    html, said = page(results, files, notes)
    # All are made before the first is written: either all are new or none.
    texts = {
        'report.md': markdown(results, files, said),
        'report.csv': comma_separated(results, files),
        'report.html': html,
    }
    for name, text in texts.items():
        write_atomically(out / name, text)
    return out / 'report.html'
