"""Corrects an owner's colour to WCAG 2.2 AA (success criterion 1.4.3): at least 4.5:1 wherever it carries or is text."""

from __future__ import annotations

import colorsys
import re

TEXT_CONTRAST = 4.5
# On dark surfaces the hue is text and thin lines; a little above AA reads as well as the light scheme does.
DARK_CONTRAST = 6.5
DARK_SATURATION = 0.5  # full colours glare on dark surfaces
WHITE = "#ffffff"
# `--surface-2` of the dark scheme (app/frontend/shared/tokens.css): the lightest of the surfaces that carry brand text.
DARK_SURFACE = "#232522"
STEP = 0.01  # of lightness


def is_colour(value: str) -> bool:
    return re.fullmatch(r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})", value) is not None


def _channels(colour: str) -> tuple[float, float, float]:
    digits = colour.lstrip("#")
    if len(digits) == 3:
        digits = "".join(d * 2 for d in digits)
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2, definition)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _move(colour: str, against: str, wanted: float, step: float, most_saturated: float = 1.0) -> str:
    hue, lightness, saturation = colorsys.rgb_to_hls(*_channels(colour))
    saturation = min(saturation, most_saturated)
    while True:
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
        moved = f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
        if contrast(moved, against) >= wanted or lightness == (1.0 if step > 0 else 0.0):
            return moved
        lightness = min(1.0, max(0.0, lightness + step))


def brand(colour: str) -> dict[str, str]:
    """`{"brand", "brand_on", "brand_dark"}`: a fill under white text that is also text on white; its hue on dark surfaces."""
    fill = _move(colour, WHITE, TEXT_CONTRAST, -STEP)
    return {"brand": fill, "brand_on": WHITE, "brand_dark": _move(fill, DARK_SURFACE, DARK_CONTRAST, STEP, DARK_SATURATION)}
