"""Which packages and folders are read, and how much of each: what data.toml says."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from retnet_core.distill import DistillError, sources


@dataclass(frozen=True, slots=True)
class Source:
    """A package, or a folder of an owner's. `limit`: its passages at most; `split`: "train", or "dev" for what is only measured on."""

    name: str
    limit: int
    split: str
    folder: Path | None = None
    licence: str = ""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What data.toml says."""

    seed: int
    sources: list[Source]
    entities: str = ""

    @classmethod
    def read(cls, path: Path) -> DataConfig:
        """Raises `DistillError` for a file that can't be read, an unknown key, a package named twice or one that is held out."""
        try:
            given = tomllib.loads(path.read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise DistillError(f"{path} can't be read: {error}") from None
        if unknown := given.keys() - {"seed", "entities", "group", "folder"}:
            raise DistillError(
                f"{path}: unknown: {', '.join(sorted(unknown))}; it may have seed, entities, [[group]] and [[folder]]"
            )
        found: list[Source] = []
        try:
            for group in given.get("group", []):
                split, limit = group.get("split", "train"), int(group["limit"])
                found += [Source(name, limit, _split(name, split)) for name in group["packages"]]
            for one in given.get("folder", []):
                folder = path.parent / Path(one["path"]).expanduser()
                found.append(Source(one["name"], int(one["limit"]), one.get("split", "train"), folder, one["licence"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DistillError(
                f"{path}: a group needs limit and packages, a folder name, path, licence and limit: {error!r}"
            ) from None
        names = [source.name for source in found]
        sources.refuse_held_out(names)
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DistillError(f"{path} names {', '.join(twice)} twice")
        if not found:
            raise DistillError(f"{path} names no packages and no folders")
        return cls(int(given.get("seed", 0)), found, given.get("entities", ""))


def _split(name: str, split: str) -> str:
    if name in sources.MEASURED_PACKAGES:
        return "dev"
    if split not in ("train", "dev"):
        raise ValueError(f"split is train or dev, not {split}")
    return split
