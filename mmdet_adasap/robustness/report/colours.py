# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Colours of the report, for light and dark screens.

Ramps are straight lines in OKLab (https://bottosson.github.io/posts/oklab/), where equal steps
look equal. The colours of models differ in lightness as well as in hue, so that they stay apart
for colour-blind readers and in grey; each also has a marker of its own. The colours were chosen by
hand; tests hold them to a contrast of at least 4.5, which WCAG 2.2 asks of text.
"""

from collections.abc import Sequence

import numpy as np

RAMP_STEPS = 10
"""The colours of a ramp have the numbers 0 to 10; even, so that a diverging one has a middle."""
MODEL_COLOUR_COUNT = 8
"""Colours of models before they repeat; the first is for the reference."""

LIGHT = {
    'paper': '#ffffff',
    'ink': '#1c1d1f',
    'soft': '#5b5e63',
    'line': '#d9dbde',
    'panel': '#f5f6f7',
    'alarm': '#8a3b00',
    'alarm-paper': '#fdf3e7',
    'link': '#0b5cad',
}
DARK = {
    'paper': '#16181b',
    'ink': '#e9eaec',
    'soft': '#a5a9b0',
    'line': '#3a3e44',
    'panel': '#1f2226',
    'alarm': '#ffc078',
    'alarm-paper': '#2c2216',
    'link': '#7cb7ff',
}
MODEL_COLOURS = {
    'light': [
        '#3c3f44',
        '#0068b5',
        '#c44a06',
        '#008266',
        '#a63d8f',
        '#8a6a00',
        '#5a4fcf',
        '#b3262e',
    ],
    'dark': [
        '#d6d8db',
        '#58b0f5',
        '#ff8f4d',
        '#33c9a0',
        '#e58fd2',
        '#d9b53a',
        '#a79dff',
        '#ff8087',
    ],
}
SEQUENTIAL = {
    'light': ('#ffffff', '#cfe1f2', '#6ba3d6', '#1f5fa8', '#0b3768'),
    'dark': ('#16181b', '#1c3550', '#28639c', '#5aa0dd', '#c4e0fa'),
}
DIVERGING = {
    'light': ('#a33b00', '#e08a4a', '#ffffff', '#5fa3c9', '#0a5589'),
    'dark': ('#ffab70', '#a8541a', '#16181b', '#1d648f', '#85c8f2'),
}


def ramp(stops: Sequence[str], steps: int = RAMP_STEPS) -> list[str]:
    """Return colours on the lines between evenly spaced stops.

    Args:
        stops (Sequence[str]): Colours, as '#rrggbb'.
        steps (int): The ramp has one colour more. Defaults to ``RAMP_STEPS``.

    Returns:
        list[str]: ``steps + 1`` colours, as '#rrggbb'.
    """
    lab = np.array([_to_oklab(stop) for stop in stops])
    at = np.linspace(0, len(stops) - 1, steps + 1)
    return [
        _from_oklab(np.array([np.interp(x, range(len(stops)), channel) for channel in lab.T]))
        for x in at
    ]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    # The standard adds 0.05 for light that a screen reflects.
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def text_on(background: str) -> str:
    """Return black or white, whichever has more contrast with the background."""
    return max(('#000000', '#ffffff'), key=lambda colour: contrast(colour, background))


def css_variables(scheme: str) -> dict[str, str]:
    """Return the CSS custom properties of the 'light' or 'dark' scheme, without their '--'.

    'q0' to 'q10' are the sequential ramp, 'd0' to 'd10' the diverging one, with a 't' behind them
    the colours of text on these, 'm0' to 'm7' the colours of models.
    """
    found = dict(LIGHT if scheme == 'light' else DARK)
    found |= {f'm{i}': colour for i, colour in enumerate(MODEL_COLOURS[scheme])}
    for prefix, stops in (('q', SEQUENTIAL), ('d', DIVERGING)):
        for step, colour in enumerate(ramp(stops[scheme])):
            found |= {f'{prefix}{step}': colour, f'{prefix}{step}t': text_on(colour)}
    return found


def css_rules() -> str:
    """Return the CSS with the properties of both schemes, and the classes that use them."""
    light, dark = (
        ''.join(f'--{name}:{value};' for name, value in css_variables(scheme).items())
        for scheme in ('light', 'dark')
    )
    classes = ''.join(
        f'.{p}{i}{{background:var(--{p}{i});color:var(--{p}{i}t)}}'
        for p in 'qd'
        for i in range(RAMP_STEPS + 1)
    ) + ''.join(f'.m{i}{{--own:var(--m{i})}}' for i in range(MODEL_COLOUR_COUNT))
    # "screen": paper is white, also if the screen that prints is dark.
    return (
        f':root{{color-scheme:light dark;{light}}}'
        f'@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{classes}'
    )


def sequential_class(value: float, highest: float) -> str:
    """Return the CSS class of a cell with a value from 0 to ``highest``."""
    share = value / highest if highest else 0
    return f'q{min(max(round(share * RAMP_STEPS), 0), RAMP_STEPS)}'


def diverging_class(value: float, widest: float) -> str:
    """Return the CSS class of a cell with a difference from -``widest`` to ``widest``."""
    share = value / widest if widest else 0
    return f'd{min(max(round((share + 1) * RAMP_STEPS / 2), 0), RAMP_STEPS)}'


def _channels(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def _linear(colour: str) -> np.ndarray:
    """Return linear light of an sRGB colour; the curve is that of IEC 61966-2-1."""
    channels = _channels(colour)
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2, 0 to 1."""
    return float(_linear(colour) @ (0.2126, 0.7152, 0.0722))


# Linear sRGB to cone responses, and the cube roots of these to OKLab; both from the page above.
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _to_oklab(colour: str) -> np.ndarray:
    return _TO_LAB @ np.cbrt(_TO_LMS @ _linear(colour))


def _from_oklab(lab: np.ndarray) -> str:
    # Clipped: a line in OKLab between two colours of sRGB may leave sRGB.
    linear = np.clip(np.linalg.inv(_TO_LMS) @ np.linalg.inv(_TO_LAB).dot(lab) ** 3, 0, 1)
    channels = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return '#' + ''.join(f'{round(255 * channel):02x}' for channel in channels)
