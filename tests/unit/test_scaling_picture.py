"""The picture of scaling: a panel per curve, every point inside it, the ends of the fit where its power puts them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import rlhf

PICTURE = Path(rlhf.__file__).parents[1] / "docs" / "images" / "scaling_picture.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location(PICTURE.stem, PICTURE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", ["en", "ko"])
def test_points_lie_on_the_line_of_an_exact_power(language: str):
    """y = x^2 from 1 to 100: the middle point is in the middle of the panel, on the line from corner to corner."""
    module = loaded()
    points = [{"x": x, "time_s": float(x * x)} for x in (1, 10, 100)]
    curve = {"points": points, "fits": {"time_s": {"exponent": 2.0, "scale": 1.0}}}
    text = module.scaling_picture({"measured": "2026-01-02", "curves": {"slots": curve, "check": curve}}, language)
    assert text.count("b = 2.00") == 2
    assert module.TEXTS[language]["slots"] in text
    centres = [tuple(map(float, found)) for found in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
    left, top, (width, height) = module.LEFT, module.TOP, module.PANEL
    assert centres[:3] == [(left, top + height), (left + width / 2, top + height / 2), (left + width, top)]
    line = re.search(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', text)
    assert line is not None
    assert tuple(map(float, line.groups())) == (left, top + height, left + width, top)
