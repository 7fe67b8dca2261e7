"""Exceptions that the command line prints as one line: UserError, a mistake that a user can fix
(exit code 2), and ProcessLostError (75)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

# Control characters, line separators, lone surrogates, what changes the direction of writing, and
# what cannot be seen (but for the two joiners, which scripts and emoji need).
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class UserError(Exception):
    """A mistake in input or settings. The message: what, where, what was expected, what to do."""


class NotFiniteError(UserError):
    """A loss or scores are not finite; all processes of a run raise it."""


class ProcessLostError(Exception):
    """A process of a run was killed or failed; the message says which and what to do."""

    exit_code = 75  # sysexits.h's "temporary failure": the same command resumes the run


def readable(message: str) -> str:
    """A message on one line: control characters are escaped, words of more than 260 characters are
    cut to 60."""
    return escaped(re.sub(r"(\S{60})\S{200,}", r"\1…", message))


def escaped(text: str, keep: str = "") -> str:
    """A text whose control characters, except those of `keep`, are written as escapes."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in keep else ascii(match[0])[1:-1], text)


# Names that other programs have for our settings.
_SYNONYMS = {
    "learning_rate": "lr",
    "lr_scheduler_type": "schedule",
    "scheduler": "schedule",
    "warmup_steps": "warmup",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "wd": "weight_decay",
    "max_grad_norm": "clip",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "eval_steps": "eval_every",
    "early_stopping_patience": "patience",
    "max_seq_length": "max_length",
    "num_beams": "beams",
    "num_return_sequences": "n_best",
    "do_sample": "sample",
    "gradient_checkpointing": "checkpointing",
    "report_to": "track",
    "r": "lora_r",
    "rank": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "target_modules": "modified_modules",
    "num_virtual_tokens": "prefix_token_num",
    "model": "backbone",
}


_LISTED = 12  # names that a sentence lists


def absent(path: Path, what: str = "a folder") -> str:
    """Why a path is not that of a folder: there is a file, or nothing."""
    return f"a file, expected {what}" if path.exists() else "there is no such folder"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, else a list of what exists.

    Nearest is a name that another program has for it, or the same in another part (lr is train.lr),
    else one with similar letters.
    """
    names = sorted(known)
    folded = {known.casefold(): known for known in names}  # LCQMC is as near to lcqmc as can be
    last = name.casefold().rpartition(".")[2].lstrip("-").replace("-", "_")
    same = (_SYNONYMS.get(last), last)
    near = [key for key in folded if key.rpartition(".")[2].lstrip("-").replace("-", "_") in same]
    near = near or difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{folded[near[0]]}'?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED + 1 else ""
    shown = ", ".join(names[:_LISTED] if more else names)
    return f" Known: {shown}{more}." if names else ""
