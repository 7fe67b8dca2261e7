"""The command `leaderboard plot`."""

from __future__ import annotations

import sys

from cpm_tune.commands.options.leaderboard import Plot
from cpm_tune.leaderboard.aggregate import make_board
from cpm_tune.leaderboard.figures import points, without_points
from cpm_tune.leaderboard.plot import draw
from cpm_tune.leaderboard.results import read_folder


def run(options: Plot) -> int:
    """Draw figures, print their paths."""
    results = read_folder(options.results)
    board = make_board(results, options.include, options.published)
    for note in board.left_out:
        print(f"note: {note}", file=sys.stderr)
    if not board.rows:
        print(f"{options.results}: no finished runs, so no figures.")
        return 0
    for path in draw(board, results, options.out, options.row, options.cost):
        print(path)
    if not points(board, options.cost):
        print(f"note: {without_points(board, options.cost)}", file=sys.stderr)
    return 0
