# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The table that the demo of detectors ends with."""

from collections.abc import Mapping, Sequence

from .markdown import markdown_table


def format_table(models: Mapping[str, Mapping], corruptions: Sequence[str], severity: int) -> str:
    """Lay out results as a Markdown table, one column for each model.

    Args:
        models (Mapping[str, Mapping]): The results by the model's name, as in results.json.
        corruptions (Sequence[str]): The corruptions, in order.
        severity (int): Their severity.
    """
    rows = {
        'parameters': lambda m: f'{m["params"]:,}',
        'GFLOPs': lambda m: f'{m["flops"] / 1e9:.4f}',
        'latency, ms': lambda m: f'{m["latency_ms"]:.1f}',
        'training time, s': lambda m: f'{m["train_seconds"]:.0f}',
        'mAP': lambda m: f'{m["mAP"]:.3f}',
        **{
            f'mAP, {name} {severity}': lambda m, name=name: f'{m["corrupted"][name][severity]:.3f}'
            for name in corruptions
        },
        'mPC': lambda m: f'{m["mPC"]:.3f}',
        'rPC': lambda m: f'{m["rPC"]:.3f}',
    }
    lines = [
        ['', *models],
        *[[label, *map(cell, models.values())] for label, cell in rows.items()],
    ]
    return markdown_table(lines)
