"""A family of models from outside the package: an embedding and layers of recurrent cells."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from cpm_tune.backbone.base import Backbone, PromptTable
from cpm_tune.backbone.opening import open_whole
from cpm_tune.backbone.padded import PaddedLayout
from cpm_tune.backbone.padded_batch import dummy_batch
from cpm_tune.backbone.protocol import ConfigDefaults, FolderDefaults, Shape
from cpm_tune.backbone.tokens import TokenizerDefaults
from cpm_tune.common.paths import file_sha256
from cpm_tune.common.reading import read_json


@dataclass(frozen=True)
class Config(ConfigDefaults):
    width: int
    depth: int
    entries: tuple
    family, names = "toy", (("@attention.q", ("gate",)), ("@attention.v", ("new",)))
    roles = property(lambda self: dict(self.names))
    shape = property(lambda self: Shape(self.width, self.depth, len(self.entries), 512, 0))

    def skeleton(self, layers=None):
        with torch.device("meta"):
            return Toy(replace(self, depth=layers or self.depth))


class Tokenizer(TokenizerDefaults):
    bos, eos, pad, unk, never_written = 0, 1, 2, 3, (0, 2, 3)

    def __init__(self, entries):
        self.entries, self.ids = dict(enumerate(entries)), {e: i for i, e in enumerate(entries)}

    def encode(self, text):
        return [self.ids.get(character, self.unk) for character in text]


class Cell(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate, self.new = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        keep, new, states = self.gate(x).sigmoid(), self.new(x).tanh(), []
        for t in range(x.shape[1]):
            states.append((1 - keep[:, t]) * new[:, t] + (keep[:, t] * states[-1] if t else 0))
        return torch.stack(states, 1)


class Toy(Backbone):
    layers = property(lambda self: (self.cells,))

    def __init__(self, config):
        super().__init__()
        self.config, self.embedding = config, nn.Embedding(len(config.entries), config.width)
        self.cells = nn.ModuleList(Cell(config.width) for _ in range(config.depth))

    def scores(self, batch, tokens=None):
        x = self.embedding(batch.ids)
        for cell in self.cells:
            x = cell(x)
        x = x[batch.target_row, batch.target_place] @ self.embedding.weight.t()
        yield x.float() if tokens is None else x.float().gather(1, tokens)

    def dummy(self, tokens, answer_tokens):
        return dummy_batch(tokens, answer_tokens)

    def prompt_table(self):
        n = len(self.config.entries)
        return PromptTable(self.embedding, n, n, 1.0, self.embedding.weight)


@dataclass(frozen=True)
class Folder(FolderDefaults):
    path: Path
    config: Config

    def sha256(self):
        return file_sha256(self.path / "toy.safetensors")

    def tokenizer(self):
        return Tokenizer(self.config.entries)

    def layout(self, encoding, tokenizer):
        return PaddedLayout(tokenizer, (tokenizer.bos,))

    def open(self, dtype, **how):
        weights = load_file(self.path / "toy.safetensors").items()
        return open_whole(self.config, weights, dtype, self.path, **how)


class Family:
    name, title, presets = "toy", "a recurrent toy", {"toy-small": Config(8, 2, tuple("abcd是"))}

    def recognises(self, folder):
        return (folder / "toy.json").is_file()

    def open(self, folder):
        values = read_json(folder / "toy.json")
        return Folder(folder, Config(values["width"], values["depth"], tuple(values["entries"])))
