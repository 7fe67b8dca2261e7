"""Converts CPM-2 between the files of model-parallel ranks and Hugging Face's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.encdec.cpm2 import VOCABULARY
from cpm_tune.backbone.encdec.cpm2_ranks import mt5_config, sizes_of, write_checkpoint
from cpm_tune.backbone.encdec.folder import EncDecFolder
from cpm_tune.backbone.encdec.loading import read_weights
from cpm_tune.backbone.encdec.saving import write_about
from cpm_tune.backbone.hf_folder import CONFIG
from cpm_tune.backbone.ranks.converting import Convertible
from cpm_tune.backbone.ranks.reading import Weight
from cpm_tune.errors import UserError

_ITERATION = 100_000  # of the published checkpoint


def convertible(folder: EncDecFolder) -> Convertible:
    """A CPM-2, to be written in both formats. Raises UserError for another model."""
    if not folder.is_cpm2:
        raise UserError(
            f"{folder.path}: of encoder-decoders convert takes CPM-2's alone; others are in "
            "Hugging Face's format already."
        )
    folder.tokenizer()  # the vocabulary has the size of the model
    _check_network(folder)
    weights = [
        Weight(each.name, tuple(each.shape), each.dtype, each.whole)
        for each in read_weights(folder)
    ]

    def write_ranks(part: Path, weights: Mapping[str, Weight], n: int) -> None:
        write_checkpoint(part, weights, folder.config.values, n, _ITERATION)
        shutil.copyfile(folder.vocabulary, part / VOCABULARY)
        if not folder.trained:
            (part / CONFIG).write_text(json.dumps({"cpm_tune_trained": False}) + "\n")

    def about(part: Path, dtype: torch.dtype) -> None:
        write_about(folder, part, dtype, trained=folder.trained)

    return Convertible(folder.path, weights, write_ranks, about)


def _check_network(folder: EncDecFolder) -> None:
    """Raise UserError for a config that ranks cannot say: they leave out what CPM-2 always has."""
    config = folder.config
    values = mt5_config(sizes_of(config.values)) | {"eos_token_id": config.eos_token_id}
    theirs = vars(replace(EncDecConfig.of(values), dropout_rate=config.dropout_rate))
    for name, value in vars(config).items():
        if value != theirs[name]:
            raise UserError(
                f"{folder.path / CONFIG}: {name} is {value!r}, CPM-2's is {theirs[name]!r}; only "
                "CPM-2 can be converted."
            )
