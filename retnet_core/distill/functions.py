"""Functions that a configuration names: the recipe cuts and checks text as the product does, and knows the product only by these names."""

from __future__ import annotations

import importlib
from typing import Any

from retnet_core.distill import DistillError


def load_function(name: str) -> Any:
    """The function that "package.module:function" names. Raises `DistillError`."""
    module, _, function = str(name).partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise DistillError(f"{name!r} is no function that can be imported as package.module:function ({error})") from None
    if not callable(found):
        raise DistillError(f"{name!r} is {found!r}, which can't be called")
    return found
