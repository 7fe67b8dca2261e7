"""A backbone from the Hugging Face hub: `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`.

The only module that uses the network, and only for a name of this form. A model that was downloaded
before is taken from huggingface_hub's cache, also offline.
"""

from __future__ import annotations

import re
from pathlib import Path

from cpm_tune.errors import UserError

PREFIX = "hub:"
_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FIRST, _ELSE = ["*.json", "*.txt", "*.model", "*.safetensors"], ["*.bin", "*.pt"]


def looks_like_id(text: str) -> bool:
    """Whether a text could be OWNER/NAME."""
    return _ID.fullmatch(text) is not None


def download(name: str) -> Path:
    """Return the folder with the files of `hub:OWNER/NAME[@REVISION]`, downloaded if needed.

    Pickled weights are fetched only if there are no safetensors. Raises UserError for a name of
    another form, and if the hub has no such model or cannot be reached.
    """
    model, _, revision = name.removeprefix(PREFIX).partition("@")
    if not looks_like_id(model):
        raise UserError(f"{name}: expected hub:OWNER/NAME or hub:OWNER/NAME@REVISION.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        for patterns in (_FIRST, _FIRST + _ELSE):
            folder = Path(
                snapshot_download(model, revision=revision or None, allow_patterns=patterns)
            )
            if any(folder.glob("*.safetensors")):
                break
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{name}: the hub cannot be reached and the model is not in the cache; download its "
            "files on a machine with network access and pass their folder."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: the hub has no such model, or you may not see it (see `hf auth login`)."
        ) from error
    except Exception as error:  # the network may fail in many ways
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{name}: the download failed ({line}).") from error
    return folder
