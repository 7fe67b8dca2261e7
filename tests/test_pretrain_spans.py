"""CPM-2's pre-training: spans behind sentinels, continuations; by the same commands."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrain_runs import (
    EVERY_STEP,
    SETTINGS,
    SMALL,
    assert_refused,
    assert_resumes_exactly,
    events,
    make_config,
    make_sources,
    poem,
    run_form,
    train_losses,
)
from transformers import MT5ForConditionalGeneration

from cpm_tune.backbone.encdec.config import EncDecConfig
from cpm_tune.backbone.encdec.model import EncDec
from cpm_tune.backbone.encdec.objective import CONTINUATION, SPANS
from cpm_tune.backbone.encdec.pretraining import PRETRAINING as CPM2
from cpm_tune.backbone.encdec.pretraining import SENTINELS
from cpm_tune.backbone.encdec.spans import draw_row, draw_spans, put_back, taken_out
from cpm_tune.backbone.families import open_folder, pretraining_of
from cpm_tune.errors import UserError
from cpm_tune.pretrain.evaluate import HeldOut, generate, perplexity_under
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.pretrain.optimise import make_optimisers, set_rate
from cpm_tune.pretrain.prepare import prepare
from cpm_tune.pretrain.vocabulary import build_vocabulary

SHAPE = {
    "model_type": "mt5",
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
}
SIGNS, END = list(range(1000, 1200)), 7


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    sources = make_sources(folder)
    vocabulary = folder / "vocab.txt"
    entries = build_vocabulary(sources, 360, front=CPM2.front, back=CPM2.back)
    vocabulary.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return prepare(sources, vocabulary, folder / "prepared")


@pytest.fixture
def config(corpus, tmp_path):
    return make_config(tmp_path / "config.json", corpus, SHAPE)


def made(corpus, config, seed=1):
    return CPM2.random(CPM2.config(config), seed, torch.float32)


def objective_of(corpus, config, width=64):
    return CPM2.objective(CPM2.config(config), corpus.tokenizer(), width=width, shortest=1)


# --- spans --------------------------------------------------------------------------------------

TEXTS = st.lists(st.integers(8, 99) | st.just(END), min_size=1, max_size=300)


@settings(deadline=None, max_examples=200)
@given(TEXTS, st.integers(0, 10**6))
def test_filling_the_spans_back_gives_the_text(text, seed):
    ids = np.array(text)
    spans = draw_row(np.random.default_rng(seed), ids, END)
    reads, writes = taken_out(ids, spans, SIGNS)
    assert put_back(reads.tolist(), writes.tolist(), SIGNS) == text
    assert len(reads) <= len(text)
    signs = [token for token in writes.tolist() if token in SIGNS]
    assert signs == SIGNS[: len(spans) + 1]
    assert [token for token in reads.tolist() if token in SIGNS] == signs[:-1]
    assert END not in reads  # a document ends with a span


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 400), st.integers(0, 10**6))
def test_fifteen_percent_are_taken_in_spans_of_three_on_average(length, seed):
    spans = draw_spans(np.random.default_rng(seed), length)
    taken = sum(last - first for first, last in spans)
    assert taken == min(max(round(0.15 * length), 1), length - 1)
    assert len(spans) == max(round(taken / 3), 1)
    assert spans[-1][1] == length
    assert spans[0][0] > 0
    gaps = [b[0] - a[1] for a, b in pairwise(spans)]
    assert all(last > first for first, last in spans)
    assert all(gap > 0 for gap in gaps)


def test_every_division_into_spans_is_equally_likely():
    generator = np.random.default_rng(0)
    # 40 tokens: 6 are taken, in 2 spans: the first has 1 to 5 of them
    first = [draw_spans(generator, 40)[0] for _ in range(5000)]
    counts = np.bincount([last - begin for begin, last in first], minlength=6)[1:]
    assert ((counts - 1000) ** 2 / 1000).sum() < 18.5  # 0.1% point of 4 degrees of freedom


def test_a_continuation_is_what_follows_up_to_the_documents_end(corpus, config):
    objective, tokenizer = objective_of(corpus, config), corpus.tokenizer()
    row = [np.array([END, 50, 51, 52, 53, END, 60, 61])]
    begin, end = tokenizer.sentinels[:2]
    seen = set()
    for seed in range(100):
        item = objective.drawn(np.random.default_rng(seed), row, CONTINUATION)
        reads, writes = item.reads.tolist(), item.writes.tolist()
        assert (reads[-1], writes[0]) == (begin, begin)
        whole = writes[-1] == end
        text = writes[1:-1] if whole else writes[1:]
        joined = [*reads[:-1], *text]
        assert joined == row[0][1 : 1 + len(joined)].tolist()
        assert whole == (len(joined) == 4)  # the second document goes on in the next row
        seen.add(len(reads))
    assert seen == {1, 2, 3, 4, 6, 7}


# --- losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [SPANS, CONTINUATION])
def test_losses_are_those_of_transformers(corpus, config, tmp_path, label):
    model = made(corpus, config).eval()
    CPM2.write(model, corpus.vocabulary, tmp_path)
    oracle = MT5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    # transformers 5 ties mT5's head when it loads
    oracle.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    objective, tokenizer = objective_of(corpus, config), corpus.tokenizer()
    split = corpus.split("other", "heldout")
    rows = objective.rows(split.tokens, split.offsets, 0)
    items = [objective.drawn(np.random.default_rng(n), rows.row(n), label) for n in range(2)]
    batch = objective.batch([(0, item) for item in items])
    with torch.no_grad():
        nats = TargetLosses(model, objective.losses, bf16=False, compiled=False)(batch)
        expected = []
        for item in items:
            writes = item.writes[: objective.room]
            decoder = torch.tensor([[1, *writes[:-1]]])
            logits = oracle(torch.from_numpy(item.reads)[None], decoder_input_ids=decoder).logits
            chosen = logits.log_softmax(-1).gather(2, torch.tensor(writes)[None, :, None])
            expected.append(-chosen[0, :, 0])
    assert tokenizer.pad not in batch.token
    torch.testing.assert_close(nats, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_uniform_model_loses_the_logarithm_and_sentinels_are_no_characters(corpus, config):
    model = made(corpus, config)
    for parameter in model.parameters():
        parameter.data.zero_()
    tokenizer = corpus.tokenizer()
    heldout = HeldOut(corpus, ["verse"], tokenizer, objective_of(corpus, config))
    parts = heldout.losses(model, batch=4, bf16=False)["verse"]
    assert set(parts) == {"spans", "continuation"}
    for part in parts.values():
        assert part["nats_per_token"] == pytest.approx(math.log(len(tokenizer)), rel=1e-5)
        assert part["nats_per_character"] > part["nats_per_token"]
    assert not heldout.characters[list(tokenizer.sentinels)].any()
    assert not heldout.unigram["verse"][list(tokenizer.sentinels)].any()


# --- the run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    corpus, config, tmp_path, monkeypatch, dropout
):
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dropout_rate": dropout}))

    def train_to(out, **options):
        return run_form(CPM2, corpus, config, out, SETTINGS, intervals=EVERY_STEP, **options)

    assert_resumes_exactly(train_to, tmp_path, monkeypatch)


def test_the_commands_go_from_text_to_a_backbone_that_has_learnt(tmp_path, corpus, cli):
    text = tmp_path / "poems.txt"
    text.write_text("\n\n".join(f"《{i}》\n" + poem(i) for i in range(60)), encoding="utf-8")
    vocabulary, prepared, out = (tmp_path / n for n in ("vocab.txt", "prepared", "out"))
    kind = ("--kind", "cpm-2", "--size", 4300, "--out", vocabulary)
    assert cli("pretrain", "vocab", text, *kind)[0] == 0
    assert pretraining_of(vocabulary) is CPM2
    entries = vocabulary.read_text(encoding="utf-8").split()
    assert entries[-len(SENTINELS) :] == list(SENTINELS)
    to = ("--vocab", vocabulary, "--set", "heldout=0.2", "--out", prepared)
    assert cli("pretrain", "prepare", text, *to)[0] == 0
    config = tmp_path / "c.json"
    config.write_text(json.dumps({**SHAPE, "vocab_size": len(entries)}))
    start = ("--corpus", prepared, "--config", config, "--steps", 40, "--lr", 1e-2, "--warmup", 3)
    code, said, error = cli("pretrain", "run", "--out", out, *start, *SMALL, "--width", 64)
    assert code == 0, error
    assert "nats/character (spans/continuation): poems" in said
    assert {k for row in train_losses(out) for k in row[2]} == {"spans", "continuation"}
    losses = train_losses(out)
    assert losses[-1][1] < losses[0][1] - 0.5
    judge = perplexity_under(out / "backbone")
    good, bad = judge([poem(5), "".join(reversed(poem(5)))])
    assert good < bad
    again = ("--corpus", prepared, "--backbone", out / "backbone", "--steps", 1)
    assert cli("pretrain", "run", *again, "--out", tmp_path / "on", *SMALL)[0] == 0
    assert events(tmp_path / "on")[0]["settings"]["width"] == 256
    assert cli("pretrain", "run", "--out", out, "--resume", "--steps", 41)[0] == 0


def test_the_written_backbone_is_cpm_2s_form_in_half_precision(corpus, config, tmp_path):
    model = run_form(CPM2, corpus, config, tmp_path / "out", replace(SETTINGS, steps=2))
    folder = open_folder(tmp_path / "out/backbone")
    assert (folder.config.family, folder.is_cpm2, folder.trained) == ("encdec", True, True)
    assert {path.name for path in folder.path.iterdir()} == CPM2.files
    loaded = folder.open(torch.float32)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
    tokenizer = folder.tokenizer()
    objective = CPM2.objective(loaded.config, tokenizer, width=64, shortest=1)
    assert len(generate(loaded, tokenizer, objective, "天地", n=2, length=5, seed=1)) == 2


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"model_type": "gpt2"}, (), "model_type is 'gpt2', expected t5 or mt5"),
        ({"tie_word_embeddings": True}, (), "CPM-2 has a head of its own"),
        ({"d_fff": 2}, (), "no key 'd_fff'. Did you mean 'd_ff'?"),
        ({"vocab_size": 300}, (), "vocab_size is 300, but the corpus has"),
        ({}, ("--width", 377), "--width 377: expected 8 to 376, for 190 sentinels"),
        ({}, ("--shortest", 8), "documents are laid end to end"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(corpus, config, cli, change, words, message):
    assert_refused(cli, corpus, config, change, words, message)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_queries_move_as_if_attention_were_scaled(name: str) -> None:
    """T5 begins with queries divided by the root of d_kv instead of scaling attention. Their steps
    and decay are those of the queries of scaled attention, divided so as well."""
    model = EncDec(EncDecConfig(vocab_size=40, **{**SHAPE, "d_kv": 16})).init_weights(1)
    key, query = (
        model.get_submodule(f"encoder.block.0.layer.0.SelfAttention.{part}") for part in "kq"
    )
    with torch.no_grad():
        query.weight.copy_(key.weight / 4)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    key.weight.grad = query.weight.grad = torch.randn(
        key.weight.shape, generator=torch.Generator().manual_seed(1)
    )
    before = key.weight.detach().clone()
    optimisers = make_optimisers(model, name, 0.1)
    for lr in (1e-2, 2e-2):
        set_rate(optimisers, lr)
        for optimiser in optimisers:
            optimiser.step()
    assert not torch.allclose(before, key.weight, atol=1e-3)
    torch.testing.assert_close(query.weight * 4, key.weight, atol=1e-6, rtol=1e-5)


def test_a_checkpoint_with_other_groups_is_refused_in_a_sentence(corpus, config, tmp_path):
    """Earlier versions had one group of an encoder-decoder's matrices."""
    brief = replace(SETTINGS, steps=2)
    run_form(CPM2, corpus, config, tmp_path / "out", brief)
    file = tmp_path / "out/checkpoint.pt"
    state = torch.load(file, weights_only=True)
    muon, adamw = state["optimisers"]
    for group in adamw["param_groups"]:
        del group["rate"]  # neither had they rates: the other groups are read
    (first, second) = muon["param_groups"]
    muon["param_groups"] = [{**first, "params": [*first["params"], *second["params"]]}]
    torch.save(state, file)
    with pytest.raises(UserError, match="of an earlier version"):
        run_form(CPM2, corpus, config, tmp_path / "out", replace(brief, steps=3), resume=True)
    muon["param_groups"] = [first, second]
    torch.save(state, file)
    run_form(CPM2, corpus, config, tmp_path / "out", replace(brief, steps=3), resume=True)
    assert events(tmp_path / "out")[-1]["step"] == 3
