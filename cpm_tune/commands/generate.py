"""The command `generate`: continue prompts, or fill the blanks in texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from cpm_tune.api import Backbone, load_backbone, load_run
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.commands.options.generate import Generate
from cpm_tune.common.folders import RECORD
from cpm_tune.common.sizes import checked_size, counted
from cpm_tune.common.writing import write_atomically
from cpm_tune.data.prompts import Prompt, check_characters, prompts_from, read_prompts
from cpm_tune.decode.blanks import parse_lengths
from cpm_tune.decode.texts import Text, decoding
from cpm_tune.errors import UserError
from cpm_tune.schema.options import BUNDLED


def run(options: Generate) -> int:
    """Generate texts and print, stream or write them."""
    settings = options.decoding()
    chosen = decoding(options.num, **settings)
    prompts = _prompts(options)
    filling = options.infill is not None
    one = len(prompts) == 1 and options.num == 1 and not filling
    can_stream = one and chosen.beams == 1 and not options.jsonl and options.out is None
    if options.stream and not can_stream:
        raise UserError(
            "--stream shows one text of one prompt, greedy or sampled, without --out or --jsonl."
        )
    lengths = None
    if options.blank_tokens is not None:
        given = parse_lengths(options.blank_tokens, "--blank-tokens")
        lengths = given[0], given[-1]
    backbone = _backbone(options)
    common: dict[str, Any] = {**settings, "max_length": options.max_length}
    chat: dict[str, Any] = {"chat_template": options.chat_template}
    if can_stream and (options.stream or (options.stream is None and sys.stdout.isatty())):
        (prompt,) = prompts
        _warn(prompt, backbone.tokenizer.unknown(prompt.text), backbone.tokenizer)
        for piece in backbone.stream(prompt.text, where=prompt.where, **chat, **common):
            print(piece, end="", flush=True)
        print()
        return 0
    texts, places = [prompt.text for prompt in prompts], [prompt.where for prompt in prompts]
    common |= {"num": options.num, "where": places, "batch_tokens": options.batch_tokens}
    if filling:
        generated = backbone.infill(texts, blank_tokens=lengths, **common)
    else:
        generated = backbone.generate(texts, **chat, **common)
    for text in generated:
        if text.rank == 0:
            _warn(prompts[text.of], text.left_out, backbone.tokenizer)
    _put_out(options, prompts, generated)
    return 0


def _prompts(options: Generate) -> list[Prompt]:
    if options.input is not None and str(options.input) != "-":
        return read_prompts(options.input)
    for text in (options.infill, options.prompt):
        if isinstance(text, str):
            check_characters(text, "the prompt")
            return [Prompt(text, "the prompt", 1)]
    if options.input is None and sys.stdin.isatty():
        raise UserError("there is no prompt; give one, --input FILE, or lines on standard input.")
    return prompts_from(sys.stdin.buffer)


def _backbone(options: Generate) -> Backbone:
    """The backbone with its delta; a run's own, unless another one is named."""
    if options.memory_limit is not None:
        checked_size(options.memory_limit, "--memory-limit")
    where: dict[str, Any] = {
        name: getattr(options, name) for name in ("precision", "device", "memory_limit", "quantize")
    }
    if options.delta_from is not None and (options.delta_from / RECORD).is_file():
        return load_run(options.delta_from).backbone(options.backbone, **where)
    backbone = load_backbone(options.backbone or BUNDLED, **where)
    if options.delta_from is not None:
        backbone.load_delta(options.delta_from)
    return backbone


def _warn(prompt: Prompt, unknown: Sequence[str], tokenizer: Tokenizer) -> None:
    if unknown:
        done = "left out" if tokenizer.drops_unknown else "read as the unknown entry"
        shown = (word if word.isprintable() else ascii(word)[1:-1] for word in unknown)
        words = " ".join(dict.fromkeys(shown))
        print(
            f"warning: {prompt.where}: the vocabulary of this backbone lacks {words}; {done}.",
            file=sys.stderr,
        )


def _put_out(options: Generate, prompts: Sequence[Prompt], texts: Sequence[Text]) -> None:
    """Print or write the texts."""
    if options.jsonl or (options.out is not None and options.out.suffix == ".jsonl"):
        lines = [json.dumps(_row(prompts[t.of], t), ensure_ascii=False) for t in texts]
    elif len(texts) == 1:
        lines = [texts[0].text]
    else:
        lines = [text.text.replace("\n", "\\n") for text in texts]
    if options.out is None:
        print("\n".join(lines))
        return
    try:
        write_atomically(options.out, "".join(line + "\n" for line in lines))
    except OSError as error:
        raise UserError(f"--out {options.out}: cannot be written ({error.strerror}).") from error
    print(f"written    {options.out}  {counted(len(texts), 'text')}")


def _row(prompt: Prompt, text: Text) -> dict[str, Any]:
    row: dict[str, Any] = {"id": prompt.id, "prompt": prompt.text, "rank": text.rank}
    row |= {"text": text.text, "log_prob": round(text.log_prob, 4), "tokens": text.n_tokens}
    return row | ({"fills": text.fills} if text.fills else {"finished": text.finished})
