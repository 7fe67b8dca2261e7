"""Causal language models of transformers as backbones: the same logits as transformers' own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_folders import SHAPES, make_folder
from family_checks import check_cache, made_once
from transformers import AutoModelForCausalLM, AutoTokenizer

from cpm_tune.backbone.base import Recomputed
from cpm_tune.backbone.causal.cache import SharedCache
from cpm_tune.backbone.causal.names import causal_types
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.layers import Linear
from cpm_tune.backbone.padded_batch import padded, similar_rows
from cpm_tune.data.encode import Encoder
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding
from cpm_tune.task.registry import load_task

KINDS = sorted(SHAPES)
TEXTS = ["春天来了花都开了", "天", "今天天气很好我们去山上", "鱼和花", "水火树"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of models by type, each made once."""
    return made_once(tmp_path_factory.mktemp("causal"), make_folder)


def opened(path: Path) -> tuple[Any, Any, Any]:
    """Model, layout and tokenizer."""
    folder = open_folder(path)
    tokenizer = folder.tokenizer()
    model = folder.open(torch.float32).eval()
    return model, folder.layout(Encoding(prompt_type=None, segment=None), tokenizer), tokenizer


def example(layout: Any, tokenizer: Any, text: str, answers: list[str]) -> Example:
    context = (*layout.start, *tokenizer.encode(text))
    return Example(
        text, (context,), tuple(Answer(0, tuple(tokenizer.encode(a))) for a in answers), 0, False
    )


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_are_those_of_transformers_forward_one_by_one(kind: str, made: Any) -> None:
    model, layout, tokenizer = opened(made(kind))
    theirs = AutoModelForCausalLM.from_pretrained(made(kind)).eval()
    examples = [example(layout, tokenizer, text, ["是", "不是的"]) for text in TEXTS]
    (logits,) = model.scores(layout.collate(examples))
    tokens = torch.arange(3 * len(logits)).view(-1, 3)
    (some,) = model.scores(layout.collate(examples), tokens)
    expected = []
    for one in examples:
        for answer in one.candidates:
            ids = torch.tensor([[*one.contexts[0], *answer.ids[:-1]]])
            expected.append(theirs(ids).logits[0, len(one.contexts[0]) - 1 :])
    whole = torch.cat(expected)
    assert whole.std() > 0.05
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(some, logits.gather(1, tokens), atol=1e-6, rtol=0)


@pytest.mark.parametrize("beams", [3, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_gives_what_computing_anew_gives(kind: str, beams: int, made: Any) -> None:
    model, layout, tokenizer = opened(made(kind))
    contexts = [(*layout.start, *tokenizer.encode(text)) for text in TEXTS]
    kept = check_cache(model, layout, contexts, beams)
    assert isinstance(kept, Recomputed) == (kind == "mamba")
    if kind in ("gpt2", "llama", "qwen3", "glm", "mistral", "bloom", "gemma2"):
        own_rows = kind in ("mistral", "bloom", "gemma2")
        assert isinstance(kept, SharedCache) != own_rows


def test_eager_attention_which_misreads_bool_masks_never_gets_one(made: Any) -> None:
    model, layout, tokenizer = opened(made("llama"))
    model.model.set_attn_implementation("eager")
    contexts = [(*layout.start, *tokenizer.encode(text)) for text in TEXTS]
    assert not isinstance(check_cache(model, layout, contexts, 3), SharedCache)


@pytest.mark.parametrize("left_out", ["position_ids", "attention_mask"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_beams_in_one_row_without_positions_or_mask_would_be_noticed(
    kind: str, left_out: str, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, layout, tokenizer = opened(made(kind))
    contexts = [(*layout.start, *tokenizer.encode(text)) for text in TEXTS]
    assert isinstance(check_cache(model, layout, contexts, 3), SharedCache)
    following = model.following

    def leaking(*given: Any, **named: Any) -> Any:
        return following(*given, **{key: v for key, v in named.items() if key != left_out})

    monkeypatch.setattr(model, "following", leaking)
    with pytest.raises(AssertionError, match="not close"):
        check_cache(model, layout, contexts, 3)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama", "qwen3"])
@torch.no_grad()
def test_texts_of_a_batch_do_not_see_each_other_as_packed_ones_with_positions_alone_would(
    kind: str, made: Any
) -> None:
    model, layout, tokenizer = opened(made(kind))
    theirs = AutoModelForCausalLM.from_pretrained(made(kind)).eval()
    examples = [example(layout, tokenizer, text, ["是"]) for text in TEXTS]
    (logits,) = model.scores(layout.collate(examples))
    rows = [list(one.contexts[0]) for one in examples]
    alone = torch.stack([theirs(torch.tensor([row])).logits[0, -1] for row in rows])
    torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)
    ids = torch.tensor([[token for row in rows for token in row]])
    places = torch.tensor([[place for row in rows for place in range(len(row))]])
    packed = theirs(ids, attention_mask=torch.ones_like(ids), position_ids=places).logits[0]
    ends = torch.tensor([len(row) for row in rows]).cumsum(0) - 1
    leaked = (packed[ends] - alone).abs().amax(1)
    assert leaked[0] < 1e-5 < 1e-2 < leaked[1:].min()


@torch.no_grad()
def test_contexts_of_one_length_need_no_mask_and_no_more_room_than_asked(made: Any) -> None:
    model, layout, tokenizer = opened(made("llama"))
    contexts = [(*layout.start, *tokenizer.encode(text)) for text in ("春天来了", "今天很好")]
    kept, recomputed = model.cache(layout, contexts, 1, 1), Recomputed(model, layout, contexts)
    tokens, parents = torch.tensor([[9], [8]]), torch.zeros(2, 1, dtype=torch.int64)
    for ours, theirs in (
        (kept.start(), recomputed.start()),
        (kept.step(tokens, parents), recomputed.step(tokens, parents)),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="room for"):
        kept.step(tokens, parents)


def test_long_batches_are_cut_into_groups_of_similar_length(made: Any) -> None:
    model, layout, tokenizer = opened(made("llama"))
    examples = [example(layout, tokenizer, "春" * n, ["是"]) for n in (3, 90, 5, 80, 4, 7, 60) * 4]
    batch = layout.collate(examples)
    groups = similar_rows(batch.ids, batch.lengths, together=False)
    assert len(groups) > 1
    with torch.no_grad():
        (logits,) = model.scores(batch)
        one = torch.cat([next(model.scores(layout.collate([e]))) for e in examples])
    torch.testing.assert_close(logits, one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_tokenizer_is_the_folders_own(kind: str, made: Any) -> None:
    _, layout, tokenizer = opened(made(kind))
    theirs = AutoTokenizer.from_pretrained(made(kind))
    for text in (*TEXTS, "a b\nc  d", "，。！"):
        assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert list(layout.start) + tokenizer.encode(text) == theirs.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert "".join(tokenizer.pieces(tokenizer.encode(text))) == text
    assert layout.start == ((1,) if kind == "llama" else ())
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.unk) == (1, 2, 0, 3)
    assert tokenizer.never_written == (0, 1, 3)
    assert 1 not in tokenizer.encode("<s>"), "a special entry in a text is text"
    assert tokenizer.decode([tokenizer.newline]) == "\n"


def test_masked_language_models_and_encoders_are_not_causal() -> None:
    types = causal_types()
    assert {"gpt2", "llama", "qwen3", "glm", "mistral", "bloom", "minicpm3", "cohere"} <= types
    assert not types & {"bert", "roberta", "bart", "t5", "mt5", "cpmant", "xlnet", "whisper"}


def test_recognising_and_reading_a_config_import_no_torch(made: Any) -> None:
    code = (
        "import sys; from pathlib import Path; from cpm_tune.backbone.families import open_folder;"
        f"f = open_folder(Path({str(made('llama'))!r})); f.tokenizer().encode('春'); f.sha256();"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def changed(made: Any, tmp_path: Path, kind: str = "llama", **values: Any) -> Path:
    """A copy of a folder with other values in config.json."""
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(made(kind), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "minicpm", "auto_map": {"AutoModelForCausalLM": "m.M"}}, "Python code"),
        ({"quantization_config": {"bits": 4}}, "quantised by another library"),
        ({"vision_config": {}, "audio_config": {"a": 1}}, "sound and text"),
        ({"num_attention_heads": 5}, "cannot"),
        ({"num_hidden_layers": 10**9}, "expected at most 1000"),
        ({"num_hidden_layers": 3}, "is in none of the weights"),
        ({"num_hidden_layers": 1}, "is unknown in the weights"),
        ({"intermediate_size": 64}, "shape"),
        ({"vocab_size": 100}, "entries, but the config says vocab_size 100"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    values: dict[str, Any], words: str, made: Any, tmp_path: Path
) -> None:
    path = changed(made, tmp_path, **values)
    with pytest.raises(UserError, match=words) as refused:
        opened(path)
    assert "\n" not in str(refused.value)


def test_a_config_cannot_name_code_elsewhere(made: Any, tmp_path: Path) -> None:
    folder = changed(made, tmp_path, _attn_implementation="kernels-community/anything")
    model, _, _ = opened(folder)
    assert model.model.config._attn_implementation == "cpm_tune_sdpa"


@pytest.mark.parametrize("bias", ["none", "frozen", "trained"])
@pytest.mark.parametrize("trained", [True, False])
def test_frozen_linear_layers_give_values_and_gradients_of_torchs(bias: str, trained: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, 16, generator=generator).requires_grad_(trained)
    layer = Linear(16, 24, bias=bias != "none").requires_grad_(False)
    if bias != "none":
        layer.bias.requires_grad_(bias == "trained")
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    made = layer(x)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert made.requires_grad == expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    needed = [value for value in (x, layer.bias) if value is not None and value.requires_grad]
    if needed:
        weights = torch.randn(made.shape, generator=generator)
        ours, theirs = (torch.autograd.grad(out, needed, weights) for out in (made, expected))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_more_tokens_than_positions_are_refused(made: Any) -> None:
    folder = open_folder(made("gpt2"))
    encoding = Encoding(prompt_type=None, segment=None, max_length=513)
    with pytest.raises(UserError, match="reads at most 512 tokens"):
        folder.layout(encoding, folder.tokenizer())


@torch.no_grad()
def test_a_text_may_fill_all_positions(tmp_path: Path) -> None:
    """Rows are padded to one of a few lengths, and a table of positions has no more."""
    folder = open_folder(make_folder(tmp_path / "gpt2", "gpt2", n_positions=89))
    layout = folder.layout(
        Encoding(prompt_type=None, segment=None, max_length=89), folder.tokenizer()
    )
    full = example(layout, folder.tokenizer(), "春" * 89, ["是"])
    batch = layout.collate([full])
    assert batch.ids.shape[1] > 89
    (logits,) = folder.open(torch.float32).eval().scores(batch)
    theirs = AutoModelForCausalLM.from_pretrained(folder.path).eval()
    expected = theirs(torch.tensor(full.contexts)).logits[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_groups_of_rows_have_few_shapes_and_little_padding() -> None:
    """Each new shape of a product takes time and memory (`row_length`)."""
    drawn = torch.Generator().manual_seed(1)
    shapes, used, whole = set(), 0, 0
    for _ in range(200):
        lengths = torch.randint(30, 250, (16,), generator=drawn).sort(descending=True).values
        ids = padded([torch.zeros(n, dtype=torch.int64) for n in lengths.tolist()], 0)
        for first, end, length in similar_rows(ids, lengths, together=False):
            shapes.add((end - first, length))
            assert length >= lengths[first]
            whole += (end - first) * length
        used += int(lengths.sum())
    assert len(shapes) < 45  # 117 with every length, and groups of any number of rows
    assert whole < 1.3 * used


def test_an_empty_context_is_refused(made: Any) -> None:
    _, layout, tokenizer = opened(made("gpt2"))
    with pytest.raises(UserError, match="its context has no token"):
        layout.collate([example(layout, tokenizer, "", ["是"])])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_random_weights_are_the_same_for_a_seed_and_finite(kind: str, made: Any) -> None:
    folder = open_folder(made(kind))
    layout = folder.layout(Encoding(prompt_type=None, segment=None), folder.tokenizer())
    batch = layout.collate([example(layout, folder.tokenizer(), "春天", ["是"])])
    models = [folder.open(torch.float32, random_seed=seed).eval() for seed in (1, 1, 2)]
    first, again, other = (next(model.scores(batch)) for model in models)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert first.isfinite().all()
    assert {n: p.shape for n, p in models[0].named_parameters()} == {
        n: p.shape for n, p in folder.open(torch.float32).named_parameters()
    }
    trained = dict(folder.open(torch.float32).named_buffers())
    for name, buffer in models[0].named_buffers():
        assert torch.equal(buffer, trained[name]), name


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_saved_it_is_the_same_folder(kind: str, made: Any, tmp_path: Path) -> None:
    folder, out = open_folder(made(kind)), tmp_path / "out"
    out.mkdir()
    folder.save(folder.open(torch.float32), out, "hf", trained=True)
    theirs = [AutoModelForCausalLM.from_pretrained(path).eval() for path in (folder.path, out)]
    ids = torch.arange(4, 40)[None]
    assert torch.equal(*(model(ids).logits for model in theirs))
    again = open_folder(out)
    assert (again.config, again.trained) == (folder.config, True)
    assert again.tokenizer().sha256 == folder.tokenizer().sha256


def test_an_answer_word_of_two_tokens_names_a_template_that_scores_words(made: Any) -> None:
    _, layout, tokenizer = opened(made("llama"))
    task = load_task("lcqmc")
    template = replace(task.template(None), yes="是的")
    with pytest.raises(
        UserError, match=r"not a single entry of this vocabulary, but 2.*--template cpm-2"
    ):
        Encoder(task, template, layout, tokenizer, 256)
