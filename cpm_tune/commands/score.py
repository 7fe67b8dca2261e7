"""The command `score`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser

EXAMPLES = """examples:
  {prog} score --task ccpm --predictions CCPM.jsonl --name "My system" --data DIR
  {prog} score --task ccpm --predictions tasks/sample/ccpm/test.jsonl --name Gold

FILE is the organisers' submission form (a file in the training format), or lines of
{{"id": ..., "prediction": ...}}."""


def score(argv: Sequence[str], prog: str) -> int:
    """`score --task T --predictions FILE --name NAME`."""
    p = make_parser(
        f"{prog} score",
        "Score the predictions of any system into a record beside the runs.",
        EXAMPLES.format(prog=prog),
    )
    p.add_argument("--task", metavar="NAME", required=True)
    p.add_argument("--predictions", metavar="FILE", type=Path, required=True)
    p.add_argument("--name", required=True, help="what tables call the system")
    p.add_argument("--data", metavar="DIR", type=Path, help="official files (default: sample data)")
    p.add_argument("--split", choices=["dev", "test"], default="test", help="default: test")
    p.add_argument("--seed", type=int, default=1, help="tells several runs of a system apart")
    p.add_argument("--out", metavar="DIR", type=Path, default=Path("results"))
    p.add_argument("--overwrite", action="store_true", help="replace predictions of this name")
    p.add_argument("--include", metavar="PATH", type=Path, action="append", default=[])
    args = p.parse_args(argv)
    if not 0 <= args.seed < 2**32:
        p.error(f"--seed is {args.seed}, expected 0 to {2**32 - 1}")
    from cpm_tune.systems.system import score_system

    done = score_system(**vars(args))
    record = done.record
    for name, found in record.scores[record.split].items():
        print(
            f"{record.split} {name} {found.value:.4f}  [{found.low:.4f}, {found.high:.4f}]  "
            f"n={found.n}"
        )
    for said in (*([record.note] if record.note else []), *record.warnings):
        print(f"warning    {said}")
    print(f"{'there already' if done.reused else 'written'}    {done.folder}")
    return 0
