"""The command `prune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpm_tune.commands.arguments import make_parser

RANDOM = 3  # random prunings of the same size, for comparison


def prune(argv: Sequence[str], prog: str) -> int:
    """`prune SRC DST --attention-layers N --ffn-layers M --text FILE`."""
    try:
        return _prune(argv, prog)
    except KeyboardInterrupt as stop:
        stop.args = ("nothing was written",)
        raise


def _prune(argv: Sequence[str], prog: str) -> int:
    p = make_parser(
        f"{prog} prune",
        "Leave out the attention and feed-forward sub-blocks that a text needs least: a smaller\n"
        "backbone folder (mask_modules). Prints each one's importance and what is lost, beside\n"
        "random choices of the same size. Tuning recovers a part (docs/backbone.md).",
        f"examples:\n  {prog} prune cpm-ant-tiny small --attention-layers 3 --ffn-layers 3 "
        "--text texts.txt",
    )
    p.add_argument("source", metavar="SRC", help="a backbone: name, folder, or hub:OWNER/NAME")
    p.add_argument("out", metavar="DST", type=Path, help="a new folder")
    p.add_argument("--attention-layers", metavar="N", type=int, required=True, help="that remain")
    p.add_argument("--ffn-layers", metavar="M", type=int, required=True, help="that remain")
    p.add_argument(
        "--text", metavar="FILE", type=Path, required=True, help="documents: .txt, or .jsonl"
    )
    p.add_argument("--to", choices=["native", "reference", "hf"], default="native")
    p.add_argument("--pieces", metavar="N", type=int, default=256, help="of text (default: 256)")
    p.add_argument("--seed", type=int, default=0, help="of pieces, masks and random choices")
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of measuring")
    p.add_argument("--device", default="auto", help="cpu, cuda (default: auto)")
    p.add_argument("--memory-limit", metavar="SIZE", help="most of the backbone in memory, as 4GB")
    p.add_argument("--overwrite", action="store_true", help="replace a backbone folder at DST")
    args = p.parse_args(argv)
    for name, at_least in (("seed", 0), ("pieces", 2)):
        if getattr(args, name) < at_least:
            p.error(f"--{name} is {getattr(args, name)}, expected a whole number from {at_least}")
    from cpm_tune.common.sizes import counted, parse_size

    limit = None
    if args.memory_limit is not None:
        limit = parse_size(args.memory_limit, "--memory-limit")
    from cpm_tune.backbone.bundled import resolve
    from cpm_tune.backbone.convert import check_free, convert
    from cpm_tune.backbone.folder import open_folder
    from cpm_tune.backbone.hugging_face import check_whole
    from cpm_tune.backbone.streamed import open_streamed
    from cpm_tune.engine.device import DTYPES, choose_device
    from cpm_tune.pretrain import prune as how

    folder = open_folder(resolve(args.source))
    keep = dict(zip(how.KINDS, (args.attention_layers, args.ffn_layers), strict=True))
    how.check_keep(folder.config, keep)
    check_free(args.out, args.overwrite, folder.path)
    if args.to == "hf":
        pruned = how.without(folder.config, how.at_random(folder.config, keep, 0))
        check_whole(pruned, "--to native or --to reference")
    sample = how.read_sample(args.text, folder.tokenizer(), folder.config, args.pieces, args.seed)
    dtype = DTYPES[args.precision]
    device = choose_device(args.device, -1)
    model = open_streamed(folder, dtype, limit=limit, device=device).to(device).eval()
    scores = how.importance(model, sample.measure)
    chosen = how.least(scores, keep)
    print("layer  attention        ffn  (growth of the loss without it; - is left out)")
    for layer in range(folder.config.num_layers):
        cells = (_cell(scores.get((layer, kind)), (layer, kind) in chosen) for kind in how.KINDS)
        print(f"{layer:5}  " + "  ".join(cells))
    prunings = [how.at_random(folder.config, keep, args.seed + n) for n in range(RANDOM)]
    losses = []
    for blocks in ([], chosen, *prunings):
        with how.skipped(model, blocks):
            losses.append(how.mean_loss(model, sample.report))
    smaller = how.without(folder.config, chosen)
    convert(folder, args.out, args.to, overwrite=args.overwrite, config=smaller)
    others = ", ".join(f"{loss:.4f}" for loss in losses[2:])
    print(f"loss       whole {losses[0]:.4f}, pruned {losses[1]:.4f}, at random {others}")
    print("           nats per masked token, on the half of the text that was not measured on")
    print(f"written    {args.out}  {counted(len(chosen), 'sub-block')} left out")
    return 0


def _cell(score: float | None, out: bool) -> str:
    return " " * 9 if score is None else f"{'-' if out else ' '} {score:+7.4f}"
