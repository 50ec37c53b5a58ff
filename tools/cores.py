# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import os


def cores() -> int:
    """Cores that this process may use; 1 where the system does not say, as Windows and macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
