"""Files that come with the package: the scripts of the stages and of Slurm, and the recipes.

In a checkout `rlhf/scripts` and `rlhf/recipes` are links to its scripts/ and configs/; in an installed package they are
folders with the same files.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import rlhf
from rlhf.errors import ConfigError

_PACKAGE = Path(rlhf.__file__).resolve().parent
SCRIPTS = (_PACKAGE / "scripts").resolve()
RECIPES = (_PACKAGE / "recipes").resolve()
ROOT = SCRIPTS.parent  # holds scripts/: the checkout, or the installed package
PREFIX = "recipe:"


def recipe_names() -> list[str]:
    """`demo/sft` and the like, sorted."""
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.glob("*/*.yaml"))


def config_file(name: str | Path, where: str = "") -> Path:
    """The file that `recipe:demo/sft` names; any other name is the path of a file.

    Args:
        where: what asked for it, for the error.

    Raises: ConfigError where there is no such recipe.
    """
    text = str(name)
    if not text.startswith(PREFIX):
        return Path(name)
    recipe = text.removeprefix(PREFIX).removesuffix(".yaml")
    names = recipe_names()
    if recipe not in names:
        near = difflib.get_close_matches(recipe, names, n=1)
        fix = f"did you mean {PREFIX}{near[0]}?" if near else "rlhf config recipes lists them"
        raise ConfigError(f"no recipe {recipe!r}", where=where, expected="a recipe of this package", fix=fix)
    return RECIPES / f"{recipe}.yaml"
