"""Small RetNets of torchscale 0.3.0 and flash-linear-attention 0.6.0 with what those packages compute, for tests/retnet_core/test_foreign_parity.py.

    .venv/bin/python scripts/foreign_fixtures.py            writes tests/retnet_core/foreign anew
    .venv/bin/python scripts/foreign_fixtures.py verify     converts those into ours and back, and has the packages load and run the result

Either makes an environment for the packages first (build/foreign-env, or --env; scripts/foreign_requirements.txt, exact pins; TORCH_INDEX names an
index of torch's CPU builds) and runs this file again inside it. No GPU is used. Making takes three minutes, most of them in the interpreter.

What computes the logits:

- torchscale: `torchscale.architecture.retnet.RetNetDecoder` itself. `logits`: its forward in the parallel form. `pieces`: the same call token by
  token with `incremental_state`, its recurrent form. Its chunkwise form is not used: it normalises by other numbers, and the head norm's eps lets
  that through (8e-3 off its own parallel form in `torchscale-heads`, 2e-5 in the others). fairscale is the real one; timm, of which torchscale
  uses stochastic depth in training alone, is stood in for by a module whose `drop_path` cannot be called.
- flash-linear-attention: `fla.models.RetNetForCausalLM` itself, its own Triton kernels run by Triton's interpreter (TRITON_INTERPRET=1), which
  needs no GPU; the autotuner is told to take its first choice instead of measuring. `logits`: `attn_mode="parallel"` over the whole length (more
  than 64 tokens, where fla takes the mode that it was given). `pieces`: with its cache over pieces of 31, 20, 15 and 4 times 1 tokens, which is
  `fused_recurrent_retention` and the recurrent step of `ShortConvolution`. Its chunk kernels do not run in the interpreter.
  `RetNetBlock` does not hand `use_short_conv` on: for those models each `attn` is replaced by a `fla.layers.MultiScaleRetention` that has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import types
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "retnet_core" / "foreign"
REQUIREMENTS = Path(__file__).with_name("foreign_requirements.txt")
WITHOUT_DEPENDENCIES = ("torchscale", "fairscale")
BATCH, LENGTH, VOCABULARY = 2, 70, 40
LONG, LONG_LENGTH, LONG_STEP = ("torchscale", "fla", "fla-conv"), 600, 40
"""Networks that also read a longer text, of which the logits of every 40th token are kept: where positions and decays have gone far."""
FLA_PIECES = (31, 20, 15, 1, 1, 1, 1)

TORCHSCALE: dict[str, dict[str, Any]] = {
    "torchscale": {},
    "torchscale-tied": {"activation_fn": "swish", "share_decoder_input_output_embed": True, "no_scale_embedding": False},
    "torchscale-heads": {"decoder_retention_heads": 6, "decoder_value_embed_dim": 24, "layernorm_eps": 1e-5, "decoder_layers": 3},
    "torchscale-fairseq": {"subln": False, "decoder_retention_heads": 1, "decoder_layers": 1},
    "torchscale-bare": {"decoder_retention_heads": 2, "decoder_value_embed_dim": 48},
}
"""Settings beside those of `torchscale_model`. `-fairseq` is stored as fairseq stores it, `-bare` as weights alone, `-tied` as safetensors."""
FLA: dict[str, dict[str, Any]] = {
    "fla": {},
    "fla-heads": {"num_heads": 4, "expand_k": 0.5, "expand_v": 1.0, "norm_eps": 1e-5, "num_hidden_layers": 3},
    "fla-tied": {"tie_word_embeddings": True, "expand_v": 1.5, "num_kv_heads": 1},
    "fla-plain-norms": {"fuse_norm": False, "elementwise_affine": False, "expand_v": 1.0},
    "fla-conv": {"use_short_conv": True},
    "fla-conv-bfloat16": {
        "num_heads": 4,
        "num_kv_heads": 2,
        "use_short_conv": True,
        "conv_size": 3,
        "fuse_norm": False,
        "fuse_swiglu": False,
        "num_hidden_layers": 1,
    },
}
"""Settings beside those of `fla_model`. `-heads` is stored in shards; the weights of `-bfloat16` are stored in bf16, and computed with in fp32."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", nargs="?", choices=("make", "verify"), default="make")
    parser.add_argument(
        "--env", type=Path, default=ROOT / "build" / "foreign-env", help="where the packages' environment is made"
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return {"make": make, "verify": verify}[given.command](given.inside)
    python = environment(given.env)
    calm = {"PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    settings = {**os.environ, **calm, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.command == "verify":
            convert_and_back(folder)
        subprocess.run([python, __file__, given.command, "--inside", folder], env=settings, check=True)
        if given.command == "make":
            shutil.rmtree(FIXTURES, ignore_errors=True)
            shutil.copytree(folder, FIXTURES)
            total = sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file())
            print(f"{FIXTURES.relative_to(ROOT)}: {total / 1e6:.2f} MB")


def environment(folder: Path) -> Path:
    """The interpreter of the packages' environment, which is made unless it is there and whole."""
    python, complete = folder / "bin" / "python", folder / "complete"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if complete.is_file() and complete.read_text() == wanted:
        return python
    print(f"making {folder}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pins = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    alone = [pin for pin in pins if pin.startswith(WITHOUT_DEPENDENCIES)]
    (torch,) = (pin for pin in pins if pin.startswith("torch=="))
    index = os.environ.get("TORCH_INDEX")

    def install(*arguments: str) -> None:
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments], check=True)

    install(*(("--index-url", index) if index else ()), torch)
    install(*(pin for pin in pins if pin not in (*alone, torch)))
    install("--no-deps", "--no-build-isolation", *alone)
    complete.write_text(wanted)
    return python


def convert_and_back(folder: Path) -> None:
    """Each fixture through our command line: into ours (`NAME.ours`), and from there into what it was (`NAME`)."""
    convert = [sys.executable, "-m", "retnet_core.checkpoint", "convert", "--check"]
    for source in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
        ours, back = folder / f"{source.name}.ours", folder / source.name
        subprocess.run([*convert, weights_of(source), ours], cwd=ROOT, check=True)
        subprocess.run([*convert, ours, back, "--to", source.name.partition("-")[0]], cwd=ROOT, check=True)


def weights_of(source: Path) -> Path:
    """What to give to the converter: the file where there is nothing but weights, else the folder."""
    checkpoint = source / "checkpoint.pt"
    return checkpoint if checkpoint.is_file() else source


# From here on inside the packages' environment.


def make(folder: Path) -> None:
    """Every model, its weights as that package's users have them, its inputs and its logits."""
    import importlib.metadata
    import platform

    import torch
    from safetensors.torch import save_file

    names = ("torch", "torchscale", "fairscale", "fla-core", "flash-linear-attention", "triton", "transformers")
    made: dict[str, Any] = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
    report: dict[str, Any] = {"made with": made, "largest difference of pieces from logits": {}}
    for number, (name, settings) in enumerate({**TORCHSCALE, **FLA}.items()):
        torchscale = name in TORCHSCALE
        torch.manual_seed(number)
        model = (torchscale_model if torchscale else fla_model)(settings)
        draw(model, torch.bfloat16 if name.endswith("bfloat16") else torch.float32)
        ids = torch.randint(VOCABULARY, (BATCH, LENGTH))
        with torch.no_grad():
            compute = torchscale_logits if torchscale else fla_logits
            logits, pieces = compute(model, ids)
            expected = {"ids": ids, "logits": logits, "pieces": pieces.contiguous()}
            if name in LONG:
                expected["long ids"] = torch.randint(VOCABULARY, (1, LONG_LENGTH))
                long_logits, _ = compute(model, expected["long ids"], whole_only=True)
                expected["long logits"] = long_logits[:, LONG_STEP - 1 :: LONG_STEP].contiguous()
        (folder / name).mkdir()
        (store_torchscale if torchscale else store_fla)(folder / name, name, model)
        save_file(expected, folder / f"{name}.safetensors")
        difference = float((pieces - logits).abs().max())
        report["largest difference of pieces from logits"][name] = float(f"{difference:.1e}")
        print(f"{name}: logits up to {float(logits.abs().max()):.2f}, pieces off by {difference:.1e}", flush=True)
    (folder / "made.json").write_text(json.dumps(report, indent=2) + "\n")


def verify(folder: Path) -> None:
    """The packages load what came back from our format and compute the fixtures' logits, to the bit but for the processor's own rounding."""
    import torch
    from safetensors.torch import load_file

    worst = 0.0
    for name, settings in {**TORCHSCALE, **FLA}.items():
        expected = load_file(FIXTURES / f"{name}.safetensors")
        # fairseq puts the decoder into a model of its own.
        stored = load_file(folder / name / "model.safetensors")
        tensors = {key.removeprefix("decoder."): tensor for key, tensor in stored.items()}
        described = json.loads((folder / name / "config.json").read_text())
        torch.manual_seed(1)
        if name in TORCHSCALE:
            model = torchscale_model(described)
            model.load_state_dict(tensors, strict=True)
        elif settings.get("use_short_conv"):
            model = fla_model(settings)
            model.load_state_dict(tensors, strict=True)
        else:
            interpret_triton()
            from fla.models import RetNetForCausalLM

            model, told = RetNetForCausalLM.from_pretrained(folder / name, output_loading_info=True, dtype=torch.float32)
            if told["missing_keys"] or told["unexpected_keys"] or told["mismatched_keys"]:
                raise SystemExit(f"{name}: {told}")
            model.eval()
        with torch.no_grad():
            logits, _ = (torchscale_logits if name in TORCHSCALE else fla_logits)(model, expected["ids"], whole_only=True)
        difference = float((logits - expected["logits"]).abs().max())
        worst = max(worst, difference)
        print(f"{name}: ours and back again, run by the package: logits off by {difference:.1e}", flush=True)
    if not worst <= 1e-6:
        raise SystemExit(f"the logits differ by {worst}")


def draw(model: Any, stored: Any) -> None:
    """Weights at which no part of the model is near nothing: logits of a few units, gates and norms away from 1."""
    import torch

    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            values = 1 + 0.3 * torch.randn(weight.shape)
        elif "embed" in name:
            values = torch.randn(weight.shape)
        elif "conv1d" in name:
            values = torch.randn(weight.shape) * 0.6
        else:
            values = torch.randn(weight.shape) * 1.5 * weight.shape[-1] ** -0.5
        weight.data.copy_(values.to(stored))


def torchscale_model(settings: dict[str, Any]) -> Any:
    """A `RetNetDecoder` of two layers, width 24, three heads with keys of 8 and values of 12."""
    import torch

    stand_in_for_timm()
    from torchscale.architecture.config import RetNetConfig
    from torchscale.architecture.retnet import RetNetDecoder

    sizes = {"decoder_embed_dim": 24, "decoder_value_embed_dim": 36, "decoder_retention_heads": 3, "decoder_ffn_embed_dim": 40}
    config = RetNetConfig(**{**sizes, "decoder_layers": 2, "vocab_size": VOCABULARY, **settings})
    return RetNetDecoder(config, embed_tokens=torch.nn.Embedding(config.vocab_size, config.decoder_embed_dim)).eval()


def stand_in_for_timm() -> None:
    for name in ("timm", "timm.models", "timm.models.layers"):
        sys.modules.setdefault(name, types.ModuleType(name))
    vars(sys.modules["timm.models.layers"])["drop_path"] = None


def torchscale_logits(model: Any, ids: Any, *, whole_only: bool = False) -> tuple[Any, Any]:
    import torch

    logits = model(ids)[0]
    if whole_only:
        return logits, logits
    state: dict[Any, Any] = {"is_first_step": False}
    steps = [model(ids[:, : place + 1], incremental_state=state)[0][:, -1:] for place in range(ids.shape[1])]
    return logits, torch.cat(steps, 1)


def store_torchscale(folder: Path, name: str, model: Any) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = model.state_dict()
    if name.endswith("fairseq"):
        prefixed = {f"decoder.{key}": value for key, value in tensors.items()}
        history = {"args": argparse.Namespace(**vars(model.args)), "model": prefixed, "optimizer_history": [{"num_updates": 7}]}
        torch.save(history, folder / "checkpoint.pt")
        return
    if not name.endswith("bare"):
        (folder / "config.json").write_text(json.dumps(vars(model.args), indent=2) + "\n")
    if name.endswith("tied"):
        save_file({key: value.clone() for key, value in tensors.items()}, folder / "model.safetensors")
    else:
        torch.save(tensors, folder / ("checkpoint.pt" if name.endswith("bare") else "model.pt"))


def fla_model(settings: dict[str, Any]) -> Any:
    """A `RetNetForCausalLM` of two layers, width 32, two heads with keys of 16 and values of 32."""
    interpret_triton()
    from fla.layers import MultiScaleRetention
    from fla.models import RetNetConfig, RetNetForCausalLM

    sizes = {"hidden_size": 32, "num_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": VOCABULARY}
    config = RetNetConfig(**{**sizes, "attn_mode": "parallel", "fuse_cross_entropy": False, **settings})
    model = RetNetForCausalLM(config)
    if config.use_short_conv:
        same = (
            "expand_k",
            "expand_v",
            "num_heads",
            "num_kv_heads",
            "use_short_conv",
            "conv_size",
            "elementwise_affine",
            "norm_eps",
            "fuse_norm",
        )
        options = {name: getattr(config, name) for name in same}
        for number, block in enumerate(model.model.layers):
            block.attn = MultiScaleRetention("parallel", config.hidden_size, layer_idx=number, **options)
    return model.eval()


def interpret_triton() -> None:
    from triton.runtime import autotuner

    always: Callable[..., list[float]] = lambda self, *args, config, **meta: [0.0, 0.0, 0.0]  # noqa: E731
    autotuner.Autotuner._bench = always


def fla_logits(model: Any, ids: Any, *, whole_only: bool = False) -> tuple[Any, Any]:
    import torch
    from fla.models.utils import Cache

    logits = model(ids, use_cache=False).logits
    if whole_only:
        return logits, logits
    cache, parts = Cache(), []
    for piece in ids.split(FLA_PIECES, 1):
        read = model(piece, past_key_values=cache, use_cache=True)
        cache = read.past_key_values
        parts.append(read.logits)
    return logits, torch.cat(parts, 1)


def store_fla(folder: Path, name: str, model: Any) -> None:
    import torch

    if name.endswith("bfloat16"):
        model.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="50KB" if name.endswith("heads") else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
