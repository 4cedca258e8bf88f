"""`import retnet_core` pulls in torch, tokenizers and safetensors, and nothing of the application: in a folder with nothing else of this project."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOREIGN = (
    "app", "workers", "benchmarks", "migrations", "litestar", "uvicorn", "sqlalchemy", "psycopg", "redis", "celery", "httpx", "structlog",
    "sentence_transformers", "transformers",
)  # fmt: skip

REFUSING = f"""
import json, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOREIGN!r}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Refused())
sys.path.insert(0, sys.argv[1])
"""
LOADED = """
names = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps(sorted(name for name in names if not name.startswith("_"))))
"""
EVERY_MODULE = """
import importlib, pkgutil, retnet_core
assert retnet_core.__file__.startswith(sys.argv[1]), retnet_core.__file__
for module in pkgutil.walk_packages(retnet_core.__path__, "retnet_core."):
    # Kernels in Triton are imported where there is a GPU, and Triton with it.
    if not module.name.endswith(("__main__", "kernels", "_triton")) and module.name.startswith("retnet_core.distill") == MAKING:
        importlib.import_module(module.name)
"""
MAKING_READS = {"selectolax", "cython_runtime", "markdown_it", "mdurl"}
"""What making the weights reads documentation with; nothing that serves them needs it."""
A_FORWARD_PASS = """
import torch
from retnet_core import RetNet, RetNetConfig
config = RetNetConfig(layers=2, width=16, heads=2, head_dim=8, feed_forward=32, vocabulary=40)
ids = torch.arange(30)[None]
with torch.no_grad():
    network = RetNet(config).eval()
    whole = network(ids)[0]
print(json.dumps(list(whole.shape)))
"""


def run(script: str, folder: Path) -> list[object]:
    command = [sys.executable, "-c", REFUSING + script, str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def copied(folder: Path) -> Path:
    """The engine's code alone, without weights."""
    shutil.copytree(
        ROOT / "retnet_core", folder / "retnet_core", ignore=shutil.ignore_patterns("weights", "built", "__pycache__")
    )
    return folder


def test_every_module_imports_without_the_application_and_loads_nothing_beyond_its_three_libraries(tmp_path: Path) -> None:
    alone = copied(tmp_path)
    libraries = run("import torch, tokenizers, safetensors.torch" + LOADED, alone)
    assert set(run("MAKING = False" + EVERY_MODULE + LOADED, alone)) - set(libraries) == {"retnet_core"}
    making = set(run("MAKING = True" + EVERY_MODULE + LOADED, alone)) - set(libraries)
    assert making - MAKING_READS == {"retnet_core"}


def test_a_network_runs_where_the_application_is_not(tmp_path: Path) -> None:
    assert run(A_FORWARD_PASS, copied(tmp_path)) == [1, 30, 40]


def test_the_refusal_itself_works(tmp_path: Path) -> None:
    """So that the tests above can fail."""
    command = [sys.executable, "-c", REFUSING + "import app", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode != 0 and "app is not installed here" in done.stderr
