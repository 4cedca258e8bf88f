"""From the C++ files beside this one to a shared library, once for each version of them.

    python retnet_core/native/build.py [--beside] [--target NAME]

The library is looked for beside the sources (`built/`, for images and wheels), then in the user's cache, and compiled into the latter.
Runs without torch, so that an installation can do it in a moment.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
BUILT = SOURCES / "built"
FLAGS = (
    *("-std=gnu++20", "-O3", "-fno-math-errno", "-shared", "-fPIC", "-pthread", "-Wall", "-Wextra"),
    # GCC takes its own intrinsics' undefined registers for a mistake, and tells of an ABI that nobody here relies on.
    *("-Wno-maybe-uninitialized", "-Wno-uninitialized", "-Wno-psabi"),
)
COMPILERS = ("c++", "g++", "clang++")
COMPILE_SECONDS = 120


class BuildError(RuntimeError):
    """There is no compiler, or it failed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A set of instructions: the compiler's flags for it, and the processor's flags that it needs (as in /proc/cpuinfo)."""

    name: str
    flags: tuple[str, ...]
    needs: frozenset[str]


TARGETS = {
    "avx512-vnni": Target(
        "avx512-vnni",
        ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
        frozenset(("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")),
    ),
    # The same instructions on half as wide registers. On a processor whose arithmetic is no wider (AMD's Zen 4) one conversation alone is
    # written up to a tenth quicker, and 32 of them a tenth slower: for tests and comparisons.
    "avx512-vnni-256": Target(
        "avx512-vnni-256",
        ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=256", "-DRETNET_HALF"),
        frozenset(("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")),
    ),
    "avx-vnni": Target("avx-vnni", ("-march=x86-64-v3", "-mavxvnni"), frozenset(("avx2", "fma", "bmi2", "avx_vnni"))),
    "avx2": Target("avx2", ("-march=x86-64-v3",), frozenset(("avx2", "fma", "bmi2"))),
    # Slower than torch: it shows that the arithmetic does not depend on the instructions.
    "plain": Target("plain", (), frozenset()),
}
FAST = ("avx512-vnni", "avx-vnni", "avx2")
"""Those that are quicker than torch, the quickest first."""


def of_this_kind(target: Target) -> bool:
    """Whether the target's instructions belong to this kind of processor."""
    return not target.needs or platform.machine() in ("x86_64", "AMD64")


def supported(target: Target) -> bool:
    """Whether this machine's processor has the target's instructions."""
    if not target.needs or not of_this_kind(target):
        return not target.needs
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return target.needs <= set(flags.split())


def fastest() -> Target | None:
    """The quickest target of this machine's processor; None where torch is."""
    return next((TARGETS[name] for name in FAST if supported(TARGETS[name])), None)


def name_of(target: Target) -> str:
    """The library's file name; another one for any change of the sources, the flags, the machine's kind or the C library."""
    digest = hashlib.sha256("\0".join((*FLAGS, *target.flags, platform.machine(), *platform.libc_ver())).encode())
    for path in sorted((*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"retnet-{target.name}-{digest.hexdigest()[:16]}.so"


def cache() -> Path:
    """The folder for compiled libraries: RETNET_CORE_CACHE, or `retnet_core` in the user's cache folder."""
    given = os.environ.get("RETNET_CORE_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "retnet_core"


def find(target: Target) -> Path | None:
    """A library that is compiled already. One in a folder or of an owner that others could write as is not trusted."""
    for path in (BUILT / name_of(target), cache() / name_of(target)):
        if path.is_file() and all(_ours(place) for place in (path, path.parent)):
            return path
    return None


def _ours(path: Path) -> bool:
    status = path.stat()
    return status.st_uid in (0, os.getuid()) and not status.st_mode & 0o022


def build(target: Target, folder: Path | None = None) -> Path:
    """Compile the library into `folder` (None: the cache). Raises `BuildError`, and `OSError` when the folder cannot be written."""
    compiler = find_compiler()
    folder = cache() if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    library = folder / name_of(target)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # Under another name first: a second process that compiles at the same time, or is killed, leaves no half library.
        made = Path(scratch) / library.name
        command = [*compiler, *FLAGS, *target.flags, str(SOURCES / "step.cpp"), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{compiler[0]} did not end within {COMPILE_SECONDS} s") from error
        if done.returncode:
            raise BuildError(f"{compiler[0]} failed: {done.stderr.strip() or 'it says nothing'}")
        made.chmod(0o755)
        made.replace(library)
    return library


def find_compiler() -> list[str]:
    """The command of a C++ compiler, CXX or the system's. Raises `BuildError` without one."""
    if given := os.environ.get("CXX"):
        return given.split()
    for name in COMPILERS:
        if path := shutil.which(name):
            return [path]
    raise BuildError("there is no C++ compiler: install g++ (11 or newer) or clang")


def main() -> int:
    """Compile for this machine, unless that has been done; 1 when it cannot be, which nothing depends on."""
    parser = argparse.ArgumentParser(description="Compile the kernels of retnet_core.")
    parser.add_argument("--target", choices=sorted(TARGETS), help="left out: the quickest here; with --beside all")
    parser.add_argument("--beside", action="store_true", help="beside the sources, for an image, whatever this processor can do")
    chosen = parser.parse_args()
    named = [TARGETS[chosen.target]] if chosen.target else None
    if chosen.beside:
        targets = [target for target in named or [TARGETS[name] for name in FAST] if of_this_kind(target)]
    else:
        targets = [target for target in named or [fastest()] if target is not None and supported(target)]
    if not targets:
        print(f"This processor lacks {chosen.target or ' and '.join(FAST)}: torch does the work.")
    try:
        for target in targets:
            if chosen.beside or not find(target):
                print(f"Compiled {build(target, BUILT if chosen.beside else None)}")
    except (BuildError, OSError) as error:
        print(
            f"The RetNet's kernels cannot be compiled ({error}). torch does the work, at about half the speed.", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
