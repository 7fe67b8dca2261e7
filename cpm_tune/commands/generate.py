"""The command `generate`: go on with prompts, or fill the blanks in texts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.commands.arguments import Parser, add_holding, make_parser

if TYPE_CHECKING:
    from cpm_tune.api import Backbone
    from cpm_tune.data.prompts import Prompt
    from cpm_tune.decode.texts import Text

EXAMPLES = """examples:
  {prog} generate 《秋夜》
  {prog} generate 《月夜》 --temperature 0.7 --num 2 --seed 1
  {prog} generate --infill 单击____按钮以保存文件。
  {prog} generate --infill "春眠不觉晓，____{{5}}。夜来风雨声，____{{5}}。"
  {prog} generate --input prompts.txt --num 2 --out texts.jsonl
  {prog} generate 床前明月光， --delta-from RUN --greedy
  echo 孤舟 | {prog} generate --temperature 0.8 --top-k 50

A blank is ____, as many tokens long as fit best (--blank-tokens), or as its braces say: {{3}},
{{2-5}}. --input takes a line of text each, or .jsonl with "prompt" (and "id"). Several texts are
printed one a line, with \\n for a newline. docs/generate.md says more."""

# Options that decide what is written, by the names of the Python interface.
_SETTINGS: dict[str, tuple[Any, str]] = {
    "max_new_tokens": (int, "tokens to write at most, with the one that ends (default: 50)"),
    "min_new_tokens": (int, "tokens to write at least (default: 1)"),
    "beams": (int, "beam search with N beams (default: 3)"),
    "length_penalty": (float, "beams rank by log-probability / tokens^P (default: 1)"),
    "repetition_penalty": (
        float,
        "for tokens written already; 1: none (default: 1.2; sampling: 1)",
    ),
    "repetition_window": (int, "penalise the last N written tokens (default: 0, all)"),
    "temperature": (float, "sample at this temperature (default: 0.9)"),
    "top_k": (int, "sample from the N most probable tokens (default: 0, all)"),
    "top_p": (float, "sample from the fewest tokens that hold P (default: 0.9)"),
    "seed": (int, "of sampling; the same seed gives the same texts (default: 0)"),
}


def generate_parser(prog: str) -> Parser:
    p = make_parser(
        f"{prog} generate",
        "Write: go on with prompts, or fill blanks. Beam search unless told otherwise.",
        EXAMPLES.format(prog=prog),
    )
    p.add_argument("prompt", metavar="PROMPT", nargs="?", help="default: lines of standard input")
    p.add_argument("--input", metavar="FILE", type=Path, help="prompts: lines of text, or .jsonl")
    p.add_argument(
        "--infill",
        metavar="TEXT",
        nargs="?",
        const=True,
        help="fill the ____ of TEXT; without TEXT those of the prompts",
    )
    p.add_argument("--blank-tokens", metavar="N|A-B", help="tokens of a blank (default: 1-4)")
    p.add_argument("--num", metavar="N", type=int, default=1, help="texts for each prompt")
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--greedy", action="store_true", help="the most probable token at each step")
    mode.add_argument("--sample", action="store_true", help="draw; so do the options of sampling")
    for name, (kind, about) in _SETTINGS.items():
        metavar = "N" if kind is int else "X"
        p.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, type=kind, help=about)
    p.add_argument("--backbone", metavar="NAME|DIR", help="default: cpm-ant-tiny, or the run's")
    p.add_argument(
        "--delta-from", metavar="DIR", type=Path, help="a run's folder, a saved delta, or PEFT's"
    )
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    p.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda or cuda:0")
    add_holding(p)
    p.add_argument(
        "--max-length", metavar="N", type=int, help="tokens of soft prompt, prompt and text"
    )
    p.add_argument(
        "--batch-tokens", metavar="N", type=int, default=8192, help="at once (default: 8192)"
    )
    p.add_argument("--out", metavar="FILE", type=Path, help="write there; JSON lines if .jsonl")
    p.add_argument("--jsonl", action="store_true", help="print JSON lines, with log-probabilities")
    p.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show tokens as they come: one prompt, greedy or sampled (default: on a terminal)",
    )
    p.add_argument("--debug", action="store_true", help="show tracebacks")
    return p


def generate(argv: Sequence[str], prog: str) -> int:
    """`generate PROMPT`, `generate --input FILE`, `generate --infill TEXT`."""
    p = generate_parser(prog)
    try:
        return _generate(p, p.parse_args(argv))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("what is not printed yet is lost") from stop


def _generate(p: Parser, args: argparse.Namespace) -> int:
    settings = _settings(p, args)
    from cpm_tune.decode.blanks import parse_lengths
    from cpm_tune.decode.texts import decoding

    chosen = decoding(args.num, **settings)
    prompts = _prompts(p, args)
    filling = args.infill is not None
    one = len(prompts) == 1 and args.num == 1 and not filling
    can_stream = one and chosen.beams == 1 and not args.jsonl and args.out is None
    if args.stream and not can_stream:
        p.error(
            "--stream shows one text of one prompt, greedy or sampled, without --out or --jsonl"
        )
    lengths = parse_lengths(args.blank_tokens or "1-4", "--blank-tokens")
    backbone = _backbone(args)
    common: dict[str, Any] = {**settings, "max_length": args.max_length}
    if can_stream and (args.stream or (args.stream is None and sys.stdout.isatty())):
        (prompt,) = prompts
        _say_left_out(prompt, backbone.tokenizer.unknown(prompt.text))
        for piece in backbone.stream(prompt.text, where=prompt.where, **common):
            print(piece, end="", flush=True)
        print()
        return 0
    texts, places = [prompt.text for prompt in prompts], [prompt.where for prompt in prompts]
    common |= {"num": args.num, "where": places, "batch_tokens": args.batch_tokens}
    if filling:
        made = backbone.infill(texts, blank_tokens=(lengths[0], lengths[-1]), **common)
    else:
        made = backbone.generate(texts, **common)
    for text in made:
        if text.rank == 0:
            _say_left_out(prompts[text.of], text.left_out)
    _put_out(args, prompts, made)
    return 0


def _settings(p: Parser, args: argparse.Namespace) -> dict[str, Any]:
    """The decoding settings that were given; ends with a sentence where options contradict."""
    settings = {name: getattr(args, name) for name in _SETTINGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    if args.sample:
        settings["sample"] = True
    if args.greedy:
        settings |= {"sample": False, "beams": settings.get("beams", 1)}
        if settings["beams"] != 1:
            p.error("--greedy goes with no --beams")
    if args.infill is None and args.blank_tokens is not None:
        p.error("--blank-tokens has no effect without --infill")
    for name in ("max_new_tokens", "min_new_tokens"):
        if args.infill is not None and name in settings:
            option = f"--{name.replace('_', '-')}"
            p.error(f"{option} has no effect on blanks; give --blank-tokens")
    for name in ("max_length", "batch_tokens"):
        value = getattr(args, name)
        if value is not None and value < 1:
            p.error(f"--{name.replace('_', '-')} is {value}, expected a whole number from 1")
    if args.out is not None and not args.out.absolute().parent.is_dir():
        p.error(f"--out {args.out}: there is no folder {args.out.parent}")
    if args.out is not None and args.out.is_dir():
        p.error(f"--out {args.out} is a folder; give a file")
    return settings


def _prompts(p: Parser, args: argparse.Namespace) -> list[Prompt]:
    from cpm_tune.data.prompts import Prompt, check_characters, prompts_from, read_prompts

    texts = [text for text in (args.infill, args.prompt) if isinstance(text, str)]
    if len(texts) + (args.input is not None) > 1:
        p.error("of PROMPT, --input FILE and --infill TEXT only one can be given")
    if args.input is not None and str(args.input) != "-":
        return read_prompts(args.input)
    if texts:
        if not texts[0].strip():
            p.error("the prompt is empty; give a text")
        check_characters(texts[0], "the prompt")
        return [Prompt(texts[0], "the prompt", 1)]
    if args.input is None and sys.stdin.isatty():
        p.error("there is no prompt; give one, --input FILE, or lines on standard input")
    return prompts_from(sys.stdin.buffer)


def _backbone(args: argparse.Namespace) -> Backbone:
    """The backbone asked for with its delta; a run's own, unless another place is named."""
    from cpm_tune.api import load_backbone, load_run
    from cpm_tune.common.folders import RECORD

    names = ("precision", "device", "memory_limit", "quantize")
    where: dict[str, Any] = {name: getattr(args, name) for name in names}
    if args.delta_from is not None and (args.delta_from / RECORD).is_file():
        return load_run(args.delta_from).backbone(args.backbone, **where)
    backbone = load_backbone(args.backbone or "cpm-ant-tiny", **where)
    if args.delta_from is not None:
        backbone.load_delta(args.delta_from)
    return backbone


def _say_left_out(prompt: Prompt, unknown: Sequence[str]) -> None:
    if unknown:
        shown = (word if word.isprintable() else ascii(word)[1:-1] for word in unknown)
        what = " ".join(dict.fromkeys(shown))
        said = f"warning: {prompt.where}: the vocabulary of this backbone lacks {what}; left out."
        print(said, file=sys.stderr)


def _put_out(args: argparse.Namespace, prompts: Sequence[Prompt], made: Sequence[Text]) -> None:
    """Print or write the texts."""
    from cpm_tune.common.sizes import counted
    from cpm_tune.common.writing import write_atomically
    from cpm_tune.errors import UserError

    if args.jsonl or (args.out is not None and args.out.suffix == ".jsonl"):
        lines = [json.dumps(_row(prompts[t.of], t), ensure_ascii=False) for t in made]
    elif len(made) == 1:
        lines = [made[0].text]
    else:
        lines = [text.text.replace("\n", "\\n") for text in made]
    if args.out is None:
        print("\n".join(lines))
        return
    try:
        write_atomically(args.out, "".join(line + "\n" for line in lines))
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot be written ({error.strerror}).") from error
    print(f"written    {args.out}  {counted(len(made), 'text')}")


def _row(prompt: Prompt, text: Text) -> dict[str, Any]:
    row: dict[str, Any] = {"id": prompt.id, "prompt": prompt.text, "rank": text.rank}
    row |= {"text": text.text, "log_prob": round(text.log_prob, 4), "tokens": text.n_tokens}
    return row | ({"fills": text.fills} if text.fills else {"finished": text.finished})
