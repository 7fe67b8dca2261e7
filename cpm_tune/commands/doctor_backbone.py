"""What a backbone can do, for `doctor --backbone`: read from its files, without any weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cpm_tune.backbone.bundled import resolve
from cpm_tune.backbone.families import families, open_folder
from cpm_tune.backbone.protocol import BackboneFolder
from cpm_tune.common.door import load
from cpm_tune.errors import UserError
from cpm_tune.planning.plan import make_delta
from cpm_tune.task import Template
from cpm_tune.task.registry import preset_files

Line = tuple[str, str, str]  # state (ok, or - for what cannot be), name, result


def lines(name: str) -> Iterator[Line]:
    """A line for each capability; raise UserError if the folder is no backbone."""
    folder = open_folder(resolve(name))
    config, tokenizer = folder.config, folder.tokenizer()
    shape = config.shape
    title = next((f.title for f in families() if f.name == config.family), config.family)
    weights = "trained" if folder.trained else "random weights: it has learnt nothing"
    form = f"checkpoint format {folder.format}; {weights}; no weight was read"
    yield "ok", "family", f"{config.family} ({title}); {form}"
    yield "ok", "size", f"{shape.layers} layers, width {shape.width}, {shape.vocabulary:,} logits"
    most = f"{shape.limit:,} at most" if shape.limit else "any number"
    yield "ok", "tokens", f"{most}; told apart by position: {shape.longest:,}"
    end = tokenizer.entries[tokenizer.eos]
    yield "ok", "tokenizer", f"{len(tokenizer):,} entries; {end!r} ends a text"
    yield from _scoring(tokenizer)
    yield _possible("chat template", "the checkpoint's own", folder.chat_template)
    yield _possible("blanks", "generate fills them", partial(folder.infilling, tokenizer))
    for form in ("merged", "hf"):
        yield _possible(f"export {form}", "possible", partial(folder.check_save, form))
    yield _possible("export peft", "LoRA", config.peft_prefix)
    for delta in preset_files():
        yield _possible(f"delta {delta}", "", partial(_trained, folder, delta, tokenizer))


def _scoring(tokenizer: Any) -> Iterator[Line]:
    """Whether options can be scored by one word, and by their own."""
    yes = Template.yes
    n = len(tokenizer.encode(yes))
    if n == 1 and tokenizer.unk not in tokenizer.encode(yes):
        yield "ok", "yes-logit", f"{yes} is one entry"
    else:
        yield "-", "yes-logit", f"{yes} is not one known entry: use templates with {{answer}}"
    yield "ok", "other rules", "as the template allows, see docs/scoring.md"


def _trained(folder: BackboneFolder, name: str, tokenizer: Any) -> str:
    delta = make_delta(folder, name)
    skeleton = load("cpm_tune.planning.skeleton:make_skeleton")(folder.config, delta, tokenizer)
    return f"{skeleton.n_trained:,} trained values"


def _possible(name: str, result: str, action: Callable[[], Any]) -> Line:
    try:
        value = action()
    except UserError as error:
        return "-", name, " ".join(str(error).split())
    return "ok", name, result or str(value)
