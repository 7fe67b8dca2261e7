"""Backbones that write, deltas in and out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpm_tune.api.paths import AnyPath, name_of
from cpm_tune.backbone import base
from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.common.folders import RECORD
from cpm_tune.common.sizes import checked_size
from cpm_tune.data.prompts import check_characters
from cpm_tune.decode.texts import DRAWING, Text, Writer, check_number, decoding, whole_number
from cpm_tune.delta.config import DeltaConfig, parse_config
from cpm_tune.delta.insert import Delta, insert, like
from cpm_tune.delta.saved import read_saved
from cpm_tune.engine.device import DTYPES
from cpm_tune.engine.engine import make_engine
from cpm_tune.errors import UserError
from cpm_tune.planning.placement import check_placement
from cpm_tune.planning.plan import chat_template as read_chat
from cpm_tune.runs.rerun import chat_of_run
from cpm_tune.schema.options import BUNDLED, MOST_SEED, Precision, Quantize
from cpm_tune.schema.record import finished_record
from cpm_tune.schema.spec import Encoding, Execution
from cpm_tune.task.registry import load_preset

if TYPE_CHECKING:
    from torch import Tensor


NO_CHAT = "none"  # in place of a chat template: the prompt as it is


def load_backbone(
    backbone: AnyPath = BUNDLED,
    *,
    precision: Precision = "fp32",
    device: str = "auto",
    memory_limit: str | None = None,
    quantize: Quantize | None = None,
) -> Backbone:
    """Open a backbone: the bundled one, a folder in any checkpoint format (docs/backbone.md), or
    one of the Hugging Face hub, hub:OWNER/NAME.

    `device` is auto, cpu, cuda or cuda:0. The weights are read when they are first needed.
    `memory_limit`, such as 4GB, is the maximum memory for the weights: layers are read while others
    compute, and nothing can be trained. `quantize` "int8" keeps the linear weights in 8 bits (extra
    int8); they stay frozen, and it excludes a memory limit. Raises UserError if the folder is not a
    backbone, or if options exclude each other.
    """
    folder = open_folder(resolve(name_of(backbone, "backbone")))
    return Backbone(folder, precision, device, memory_limit=memory_limit, quantize=quantize)


class Backbone:
    """A backbone with at most one delta inserted.

    `model` is the torch module, `tokenizer` its tokenizer, `folder` its folder, `delta` the
    inserted delta or None.
    """

    def __init__(
        self,
        folder: BackboneFolder,
        precision: Precision = "fp32",
        device: str = "auto",
        *,
        random_seed: int | None = None,
        memory_limit: str | None = None,
        quantize: Quantize | None = None,
    ) -> None:
        """`random_seed` draws random weights of the folder's shape: a control's backbone."""
        if precision not in DTYPES:
            raise UserError(f"precision is '{precision}', expected one of {', '.join(DTYPES)}.")
        limit = None
        if memory_limit is not None:
            limit = checked_size(str(memory_limit), "memory_limit")
        if not isinstance(device, str):
            raise UserError(f"device is {device!r}, expected auto, cpu, cuda or cuda:0.")
        execution = Execution(device=device, memory_limit=limit)
        check_placement(execution, None, precision, quantize, random=random_seed is not None)
        self.folder, self.tokenizer = folder, folder.tokenizer()
        self.delta: Delta | None = None
        self._engine = make_engine(execution, precision)
        self._limit, self._quantize = execution.memory_bytes, quantize
        self._precision, self._seed = precision, random_seed
        self._model: base.Backbone | None = None
        self._encoding: Encoding | None = None
        self._chat: str | None = None  # the chat template of the delta's run

    @property
    def model(self) -> base.Backbone:
        """The torch module, in evaluation mode and frozen unless a delta was just inserted."""
        if self._model is None:
            model = self.folder.open(
                DTYPES[self._precision],
                random_seed=self._seed,
                quantize=self._quantize,
                limit=self._limit,
                device=self._engine.device,
            )
            self._model = self._engine.prepare(model.eval().requires_grad_(False))
        return self._model

    # --- deltas ---

    def insert_delta(self, delta: str = "lora", *, seed: int = 1, **settings: Any) -> Delta:
        """Insert a new delta for training: `delta.parameters` are its tensors by name.

        `delta` is a preset's name or a JSON file, `settings` change its keys (lora_r=16). It
        replaces the present delta. Raises UserError if it does not fit; nothing changes then.
        """
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MOST_SEED:
            raise UserError(f"seed is {seed!r}, expected a whole number from 0 to {MOST_SEED}.")
        preset = load_preset(name_of(delta, "delta"))
        config = parse_config({**preset, **settings}, f"delta {delta}")
        self.delta = self._exchange(config, seed=seed)
        self._engine.prepare(self.model)
        return self.delta

    def load_delta(self, folder: AnyPath) -> Delta:
        """Insert a saved delta: a run's folder, one written by `delta.save`, a LoRA of PEFT's,
        OpenDelta's folder, or CPM-Live's best.pt.

        It replaces the present delta. Raises UserError if it belongs to another backbone or is
        broken; nothing changes then.
        """
        if not isinstance(folder, str | PathLike) or not str(folder):
            raise UserError(
                f"load_delta: {folder!r} is not a path; give the folder of a run or of a delta."
            )
        place = Path(folder)
        if not place.exists():
            raise UserError(
                f"{place}: there is no such folder; give the folder of a run or of a delta."
            )
        record = finished_record(place) if (place / RECORD).is_file() else None
        chat = None if record is None else chat_of_run(place, record.spec.chat_template)
        self.delta = self._exchange(*read_saved(place, like(self.model), self.folder.sha256()))
        self._engine.prepare(self.model.eval()).requires_grad_(False)
        self._encoding = record.spec.encoding if record is not None else None
        self._chat = chat
        return self.delta

    def _exchange(
        self, config: DeltaConfig, values: dict[str, Tensor] | None = None, seed: int = 0
    ) -> Delta:
        """Insert a delta in place of the present one, if it fits."""
        given = config, self.folder.sha256(), seed, self.tokenizer
        insert(like(self.model), *given, values=values)
        self.remove_delta()
        return insert(self.model, *given, values=values)

    def remove_delta(self) -> None:
        """Leave the backbone as it was, bit for bit."""
        if self.delta is not None:
            self.delta.remove()
        self.delta = self._encoding = self._chat = None

    # --- texts ---

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        num: int = 1,
        max_length: int | None = None,
        batch_tokens: int = 8192,
        where: Sequence[str] | None = None,
        chat_template: AnyPath | None = None,
        **settings: Any,
    ) -> list[Text]:
        """Continue prompts: `num` texts for each, prompt by prompt, the best first.

        With a chat template ("own", the checkpoint's, or a Jinja file) a prompt is the user's turn,
        and a text the assistant's. By default it is that of the run whose delta was loaded; "none"
        is none.

        `settings` are those of decoding (docs/generate.md): max_new_tokens, beams, length_penalty,
        repetition_penalty, repetition_window; sample, temperature, top_k, top_p, seed. Beam search
        with 3 beams by default. A text does not depend on the others in its batch of at most
        `batch_tokens` positions. `where` names the prompts in errors.
        """
        texts, places = named_texts(prompts, where)
        whole_number(batch_tokens, "batch_tokens")
        chosen, writer = decoding(num, **settings), self._writer(max_length, chat_template)
        check_number(num, len(texts), len(texts) * num)
        encoded = writer.encode(texts, chosen, places)
        model, engine = self.model, self._engine
        return writer.write(model, engine, texts, encoded, chosen, num, batch_tokens)

    def stream(
        self,
        prompt: str,
        *,
        max_length: int | None = None,
        where: str = "prompt",
        chat_template: AnyPath | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """Yield the text that `generate` returns piece by piece; greedy or sampling."""
        if not isinstance(prompt, str):
            raise UserError(f"{where} is {prompt!r:.40}, expected one text; a stream shows one.")
        named_texts(prompt, [where])
        draws = settings.get("sample") or any(settings.get(n) is not None for n in DRAWING)
        settings.setdefault("beams", None if draws else 1)
        chosen, writer = decoding(**settings), self._writer(max_length, chat_template)
        if chosen.beams > 1:
            raise UserError("beam search has no text before its end; stream greedily or sample.")
        ((prefix, _),) = writer.encode([prompt], chosen, [where])
        return writer.stream(self.model, self._engine, prefix, chosen)

    def infill(
        self,
        texts: str | Sequence[str],
        *,
        num: int = 1,
        blank_tokens: int | tuple[int, int] | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
        where: Sequence[str] | None = None,
        **settings: Any,
    ) -> list[Text]:
        """Fill the blanks of texts such as 今天____，我们去____{2}。: `num` ways for each.

        A blank has as many tokens as its braces say, or `blank_tokens` (1 to 4): all lengths are
        tried, and the best by log-probability / tokens^length_penalty (1) is kept. An
        encoder-decoder writes as many tokens as it takes within these bounds (1 to 32). Settings as
        in `generate`.
        """
        if "max_new_tokens" in settings or "min_new_tokens" in settings:
            raise UserError("max_new_tokens has no effect on blanks; give blank_tokens.")
        given_tokens = (1, 4) if blank_tokens is None else blank_tokens
        between = (given_tokens,) * 2 if isinstance(given_tokens, int) else tuple(given_tokens)
        if not (len(between) == 2 and all(isinstance(n, int) for n in between)) or not (
            1 <= between[0] <= between[1]
        ):
            raise UserError(
                f"blank_tokens is {blank_tokens!r}, expected a number, or two like 1, 4."
            )
        lengths = None if blank_tokens is None else range(between[0], between[1] + 1)
        given, places = named_texts(texts, where)
        whole_number(batch_tokens, "batch_tokens")
        settings.setdefault("length_penalty", 1.0)
        chosen, writer = decoding(num, **settings), self._writer(max_length, NO_CHAT)
        pairs = zip(given, places, strict=True)
        blanked = [writer.blanked(text, place, lengths) for text, place in pairs]
        ways = sum(len(choices) for _, choices, _ in blanked)
        check_number(num, len(given), ways * num)
        model, engine = self.model, self._engine
        return writer.fill(model, engine, given, blanked, chosen, num, batch_tokens)

    def _writer(self, max_length: int | None, chat_template: AnyPath | None = None) -> Writer:
        if max_length is not None:
            whole_number(max_length, "max_length")
        chat = self._chat
        if chat_template is not None:
            name = name_of(chat_template, "chat_template")
            chat = None if name == NO_CHAT else read_chat(self.folder, name)
        config = self.delta.config if self.delta is not None else None
        return Writer(self.folder, self.tokenizer, config, self._encoding, max_length, chat)


def named_texts(
    prompts: str | Sequence[str], where: Sequence[str] | None
) -> tuple[list[str], Sequence[str]]:
    """Texts and what to call them in errors; raise UserError for what is no text."""
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes):
        raise UserError(f"prompts is {prompts!r:.40}, expected a text or a list of texts.")
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    places = where or [f"prompt {number}" for number in range(1, len(texts) + 1)]
    if len(places) != len(texts):
        raise UserError(f"where names {len(places)} prompts, but there are {len(texts)}.")
    for text, place in zip(texts, places, strict=True):
        if not isinstance(text, str):
            raise UserError(f"{place} is {text!r:.40}, expected a text.")
        check_characters(text, place)
    return texts, places
