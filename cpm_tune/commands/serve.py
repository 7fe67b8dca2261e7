"""The command `leaderboard serve`."""

from __future__ import annotations

from importlib.util import find_spec

from cpm_tune.commands.options.leaderboard import Serve
from cpm_tune.common.door import load
from cpm_tune.common.sizes import parse_size
from cpm_tune.errors import UserError
from cpm_tune.leaderboard.serve.live import Shown


def run(options: Serve) -> int:
    """Serve the page until a signal ends it."""
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise UserError(
                f"{package} is not installed; run: python -m pip install 'cpm-tune[serve]'"
            )
    app = "cpm_tune.leaderboard.serve.app"
    shown = Shown(
        published=options.published,
        include=options.include,
        per_run=options.predictions,
        texts="sample" if options.texts is None else "all" if options.texts else "none",
        data=options.data if options.texts else None,
    )
    load(f"{app}:serve")(
        options.results,
        load(f"{app}:Address")(host=options.host, port=options.port),
        shown,
        accept=options.accept,
        gold=options.data,
        most_bytes=parse_size(options.max_upload, "--max-upload"),
    )
    return 0
