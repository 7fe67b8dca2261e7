"""The command `prune`."""

from __future__ import annotations

from cpm_tune.backbone.ant.convert import convert
from cpm_tune.backbone.ant.hugging_face import check_whole
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_ant
from cpm_tune.backbone.placing import check_free
from cpm_tune.commands.options.backbone import Prune
from cpm_tune.common.sizes import counted, parse_size
from cpm_tune.engine.device import DTYPES, choose_device
from cpm_tune.pretrain import prune

RANDOM = 3  # random prunings of the same size, for comparison


def run(options: Prune) -> int:
    """Write a smaller backbone, print the importance of each sub-layer and the losses."""
    size = options.memory_limit
    limit = None if size is None else parse_size(size, "--memory-limit")
    folder = open_ant(resolve(options.source), "prune")
    keep = dict(zip(prune.KINDS, (options.attention_layers, options.ffn_layers), strict=True))
    prune.check_keep(folder.config, keep)
    check_free(options.out, options.overwrite, folder.path)
    if options.to == "hf":
        pruned = prune.without(folder.config, prune.at_random(folder.config, keep, 0))
        check_whole(pruned, "--to native or --to reference")
    sample = prune.read_sample(
        options.text, folder.tokenizer(), folder.config, options.pieces, options.seed
    )
    device = choose_device(options.device, -1)
    model = folder.open(DTYPES[options.precision], limit=limit, device=device)
    model = model.to(device).eval()
    scores = prune.importance(model, sample.measure)
    chosen = prune.least(scores, keep)
    print("layer  attention        ffn  (growth of the loss without it; - is pruned)")
    for layer in range(folder.config.num_layers):
        cells = (_cell(scores.get((layer, kind)), (layer, kind) in chosen) for kind in prune.KINDS)
        print(f"{layer:5}  " + "  ".join(cells))
    prunings = [prune.at_random(folder.config, keep, options.seed + n) for n in range(RANDOM)]
    losses = []
    for blocks in ([], chosen, *prunings):
        with prune.skipped(model, blocks):
            losses.append(prune.mean_loss(model, sample.report))
    smaller = prune.without(folder.config, chosen)
    convert(folder, options.out, options.to, overwrite=options.overwrite, config=smaller)
    others = ", ".join(f"{loss:.4f}" for loss in losses[2:])
    print(f"loss       whole {losses[0]:.4f}, pruned {losses[1]:.4f}, at random {others}")
    print("           nats per masked token, on the half of the text not used for measuring")
    print(f"written    {options.out}  {counted(len(chosen), 'sub-layer')} pruned")
    return 0


def _cell(score: float | None, pruned: bool) -> str:
    return " " * 9 if score is None else f"{'-' if pruned else ' '} {score:+7.4f}"
