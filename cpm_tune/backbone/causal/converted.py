"""Makes a tokenizer.json of what a folder has instead, by transformers."""

from __future__ import annotations

from pathlib import Path

from cpm_tune.backbone.causal.architecture import quiet
from cpm_tune.errors import UserError


def tokenizer_json(folder: Path) -> str:
    """The text of a tokenizer.json; raise UserError if transformers cannot make one."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # of any of its libraries
        raise UserError(
            f"{folder}: no tokenizer.json, and transformers cannot make one "
            f"({str(error).strip().splitlines()[0][:160] if str(error).strip() else error!r})."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"{folder}: its tokenizer ({type(tokenizer).__name__}) has no tokenizer.json; get the "
            "model with that file."
        )
    text: str = tokenizer.backend_tokenizer.to_str()
    return text
