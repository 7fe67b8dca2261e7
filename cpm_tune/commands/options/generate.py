"""Options of `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cpm_tune.common.option import Option
from cpm_tune.errors import UserError
from cpm_tune.schema.options import (
    BUNDLED,
    BackboneName,
    Beams,
    Count,
    Device,
    LengthPenalty,
    MaxNewTokens,
    MemoryLimit,
    MinNewTokens,
    Precision,
    Quantize,
    RepetitionPenalty,
    RepetitionWindow,
    ReportOptions,
    Seed,
    Temperature,
    TopK,
    TopP,
)


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """Settings of decoding by the names of the Python interface; None leaves the default."""

    max_new_tokens: Annotated[MaxNewTokens | None, Option(default="50")] = None
    min_new_tokens: Annotated[MinNewTokens | None, Option(default="1")] = None
    beams: Annotated[Beams | None, Option(default="3")] = None
    length_penalty: Annotated[LengthPenalty | None, Option(default="1")] = None
    repetition_penalty: Annotated[
        RepetitionPenalty | None, Option(default="1.2, or 1, which is none, when sampling")
    ] = None
    repetition_window: Annotated[RepetitionWindow | None, Option(default="0")] = None
    temperature: Annotated[Temperature | None, Option(default="0.9")] = None
    top_k: Annotated[TopK | None, Option(default="0")] = None
    top_p: Annotated[TopP | None, Option(default="0.9")] = None
    seed: Annotated[Seed | None, Option("seed of sampling", "N", default="0")] = None


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What is continued or filled, and how it is decoded."""

    prompt: Annotated[
        str | None,
        Option("text to continue", "PROMPT", positional=True, default="lines of standard input"),
    ] = None
    input: Annotated[Path | None, Option("prompts: lines of text, .jsonl or .json", "FILE")] = None
    infill: Annotated[
        str | bool | None,
        Option("fill the ____ of TEXT; without TEXT, those of the prompts", "TEXT", bare=True),
    ] = None
    blank_tokens: Annotated[
        str | None, Option("tokens per blank", "N|A-B", default="1-4; 1-32 of mT5")
    ] = None
    num: Annotated[Count, Option("texts per prompt")] = 1
    greedy: Annotated[bool, Option("take the most probable token at each step")] = False
    sample: Annotated[
        bool, Option("sample, as the options of sampling do", not_with=("greedy",))
    ] = False


@dataclass(frozen=True, kw_only=True)
class Generate(ReportOptions, DecodingOptions, TextOptions):
    """Continue prompts, or fill the blanks in texts; beam search by default.

    A blank is ____, with as many tokens as fit best (--blank-tokens), or as its braces say: {3},
    {2-5}. --input takes one text per line, or .jsonl or .json with "prompt" (and "id"). Several
    texts are printed one per line, with \\n for a newline. See docs/generate.md.

    examples:
      tune.py generate 《秋夜》
      tune.py generate 《月夜》 --temperature 0.7 --num 2 --seed 1
      tune.py generate --infill 单击____按钮以保存文件。
      tune.py generate --infill "春眠不觉晓，____{5}。夜来风雨声，____{5}。"
      tune.py generate --input prompts.txt --num 2 --out texts.jsonl
      tune.py generate 床前明月光， --delta-from RUN --greedy
      echo 孤舟 | tune.py generate --temperature 0.8 --top-k 50
    """

    backbone: Annotated[
        BackboneName | None, Option(default=f"the run's of --delta-from, else {BUNDLED}")
    ] = None
    delta_from: Annotated[
        Path | None, Option("delta: of a run, saved alone, of PEFT, OpenDelta or CPM-Live", "PATH")
    ] = None
    chat_template: Annotated[
        str | None,
        Option(
            "chat template of a causal model around each prompt: own (the checkpoint's), a Jinja "
            "file, or none",
            "own|none|FILE",
            default="the run's of --delta-from, else none",
        ),
    ] = None
    precision: Precision = "fp32"
    device: Device = "auto"
    memory_limit: MemoryLimit = None
    quantize: Quantize | None = None
    max_length: Annotated[
        Count | None,
        Option("most tokens of soft prompt, prompt and text", default="the backbone's longest"),
    ] = None
    batch_tokens: Annotated[Count, Option("most tokens at a time")] = 8192
    out: Annotated[Path | None, Option("write to this file; JSON lines if .jsonl", "FILE")] = None
    jsonl: Annotated[bool, Option("print JSON lines, with log-probabilities")] = False
    stream: Annotated[
        bool | None,
        Option("print tokens as they come; one prompt, greedy or sampled (default: on a terminal)"),
    ] = None

    def __post_init__(self) -> None:
        if self.greedy and (self.beams or 1) != 1:
            raise UserError("--greedy and --beams exclude each other.")
        if self.infill is not None and self.chat_template is not None:
            raise UserError("--chat-template has no effect on blanks; omit it.")
        if self.infill is None and self.blank_tokens is not None:
            raise UserError("--blank-tokens has no effect without --infill.")
        for name in ("max_new_tokens", "min_new_tokens"):
            if self.infill is not None and getattr(self, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} has no effect on blanks; give --blank-tokens.")
        if self.out is not None and not self.out.absolute().parent.is_dir():
            raise UserError(f"--out {self.out}: there is no folder {self.out.parent}.")
        if self.out is not None and self.out.is_dir():
            raise UserError(f"--out {self.out} is a folder; give a file.")
        texts = [text for text in (self.infill, self.prompt) if isinstance(text, str)]
        if len(texts) + (self.input is not None) > 1:
            raise UserError("of PROMPT, --input FILE and --infill TEXT only one can be given.")
        if texts and not texts[0].strip():
            raise UserError("the prompt is empty; give a text.")

    def decoding(self) -> dict[str, Any]:
        """The settings of decoding that were given."""
        values = {name: getattr(self, name) for name in DecodingOptions.__dataclass_fields__}
        values = {name: value for name, value in values.items() if value is not None}
        if self.sample:
            values["sample"] = True
        return values | ({"sample": False, "beams": 1} if self.greedy else {})
