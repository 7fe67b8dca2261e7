"""CPM-1's pre-training: documents end to end, the next token, its vocabulary, the same commands."""

import json
import math
import shutil
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
from transformers import GPT2LMHeadModel

from cpm_tune.backbone.causal.cpm1_tokenizer import PUBLISHED
from cpm_tune.backbone.causal.pretraining import PRETRAINING as CPM1
from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.rows import EndToEnd
from cpm_tune.errors import UserError
from cpm_tune.pretrain.evaluate import HeldOut, character_lengths, generate, perplexity_under
from cpm_tune.pretrain.losses import TargetLosses
from cpm_tune.pretrain.prepare import prepare
from cpm_tune.pretrain.store import Corpus
from cpm_tune.pretrain.vocabulary import train_vocabulary

SHAPE = {"model_type": "gpt2", "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def vocabulary(sources, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "spiece.model"
    path.write_bytes(train_vocabulary(CPM1, sources, 200))
    return path


@pytest.fixture(scope="module")
def corpus(sources, vocabulary, tmp_path_factory):
    return prepare(sources, vocabulary, tmp_path_factory.mktemp("corpus") / "prepared")


@pytest.fixture
def config(corpus, tmp_path):
    return make_config(tmp_path / "config.json", corpus, SHAPE)


def made(corpus, config, seed=1):
    return CPM1.random(CPM1.config(config), seed, torch.float32)


# --- documents end to end -----------------------------------------------------------------------

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any)


@settings(deadline=None, max_examples=80)
@given(LENGTHS, st.integers(2, 17), st.integers(0, 5))
def test_rows_are_the_documents_one_after_the_other_each_with_its_end(lengths, width, seed):
    offsets = np.cumsum([0, *lengths])
    tokens = np.arange(1, offsets[-1] + 1)
    rows = EndToEnd.of(tokens, offsets, width, 0, seed)
    given_rows = [rows.row(n)[0].tolist() for n in range(rows.n_rows)]
    text = [given_rows[0][0], *(token for row in given_rows for token in row[1:])]
    assert all(len(row) == width + 1 for row in given_rows[:-1])
    assert all(a[-1] == b[0] for a, b in pairwise(given_rows))
    assert text[0] == text[-1] == 0
    documents = "".join(f"{token} " for token in text[1:]).split(" 0")
    read = [[int(token) for token in document.split()] for document in documents[:-1]]
    read = [[token for token in document if token] for document in read]
    wanted = [tokens[a:b].tolist() for a, b in pairwise(offsets) if b > a]
    assert sorted(read) == sorted(wanted)


def test_the_order_of_documents_follows_the_seed(corpus):
    split = corpus.split("verse", "train")
    first, again, other = (
        EndToEnd.of(split.tokens, split.offsets, 16, 7, seed).row(0)[0].tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


# --- losses -------------------------------------------------------------------------------------


def objective_of(corpus, config, width=32):
    return CPM1.objective(CPM1.config(config), corpus.tokenizer(), width=width, shortest=1)


def test_losses_are_those_of_transformers(corpus, config, tmp_path):
    model = made(corpus, config).eval()
    CPM1.write(model, corpus.vocabulary, tmp_path)
    oracle = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    objective = objective_of(corpus, config)
    split = corpus.split("other", "heldout")
    rows = objective.rows(split.tokens, split.offsets, 0)
    with torch.no_grad():
        for number in range(rows.n_rows):
            row = rows.row(number)
            batch = objective.batch([(0, objective.drawn(np.random.default_rng(0), row))])
            nats = TargetLosses(model, objective.losses, bf16=False, compiled=False)(batch)
            ids = torch.from_numpy(row[0])[None]
            logits = oracle(ids[:, :-1]).logits.log_softmax(-1)
            expected = -logits.gather(2, ids[:, 1:, None])[0, :, 0]
            torch.testing.assert_close(nats, expected, rtol=1e-4, atol=1e-4)


def test_a_text_after_another_loses_what_the_chain_rule_says(corpus, config):
    model, objective = made(corpus, config).eval(), objective_of(corpus, config)
    losses = TargetLosses(model, objective.losses, bf16=False, compiled=False)
    a, b = [11, 12, 13], [14, 15]
    with torch.no_grad():
        whole, first, second = (
            losses(objective.batch([(0, objective.predicting(*pair))]))
            for pair in (((), [*a, *b]), ((), a), (a, b))
        )
    assert (len(whole), len(first), len(second)) == (6, 4, 3)  # with <eod>
    torch.testing.assert_close(whole.sum(), first[:3].sum() + second.sum(), rtol=1e-5, atol=1e-5)


def test_every_held_out_token_counts_once_and_a_uniform_model_loses_the_logarithm(corpus, config):
    model = made(corpus, config)
    for parameter in model.parameters():
        parameter.data.zero_()
    tokenizer = corpus.tokenizer()
    heldout = HeldOut(corpus, ["verse", "other"], tokenizer, objective_of(corpus, config))
    for name, parts in heldout.losses(model, batch=4, bf16=False).items():
        described = corpus.about["sources"][name]["heldout"]
        part = parts["causal"]
        assert part["tokens"] == described["tokens"] + described["documents"]
        assert part["nats_per_token"] == pytest.approx(math.log(len(tokenizer)), rel=1e-5)
        split = corpus.split(name, "heldout")
        ids = [split.document(n).tolist() for n in range(len(split))]
        characters = sum(len(tokenizer.decode(document)) + 1 for document in ids)
        nats = part["nats_per_token"] * part["tokens"]
        assert part["nats_per_character"] == pytest.approx(nats / characters)
    assert character_lengths(tokenizer)[tokenizer.eos] == 1


# --- the vocabulary -----------------------------------------------------------------------------


def test_a_trained_vocabulary_has_the_special_entries_at_cpm_1s_places(vocabulary, sources):
    tokenizer = CPM1.tokenizer(vocabulary)
    assert all(tokenizer._model.id_to_piece(index) == name for name, index in PUBLISHED.items())
    text = f"《1》\n{poem(1)} 天地\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("，", ",")
    assert tokenizer.unk not in tokenizer.encode("是否正确[]“”")  # required, not in the text
    assert tokenizer.eos not in tokenizer.encode("<eod>")
    assert train_vocabulary(CPM1, sources, 200) == vocabulary.read_bytes()


def test_too_little_text_for_a_vocabulary_is_one_sentence(tmp_path, cli):
    (tmp_path / "a.txt").write_text("天", encoding="utf-8")
    words = ("--kind", "sentencepiece", "--out", tmp_path / "v")
    code, _, error = cli("pretrain", "vocab", tmp_path / "a.txt", "--size", 3, *words)
    assert (code, error.count("\n")) == (2, 1)
    assert "sentencepiece cannot train a vocabulary of this text" in error
    assert not (tmp_path / "v").exists()


def test_words_and_pieces_are_refused_for_sentencepiece(tmp_path, cli):
    words = ("--kind", "sentencepiece", "--pieces", 5, "--out", tmp_path / "v")
    code, _, error = cli("pretrain", "vocab", tmp_path / "a.txt", *words)
    assert (code, "sentencepiece chooses both itself" in error) == (2, True)


# --- the run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"bf16": True}, {"dropout": 0.3}], ids=str)
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    corpus, config, tmp_path, change, monkeypatch
):
    change = dict(change)
    if dropout := change.pop("dropout", 0):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"resid_pdrop": dropout}))
    chosen = replace(SETTINGS, width=32, **change)

    def train_to(out, **options):
        return run_form(CPM1, corpus, config, out, chosen, intervals=EVERY_STEP, **options)

    assert_resumes_exactly(train_to, tmp_path, monkeypatch)


def test_the_commands_go_from_text_to_a_backbone_that_has_learnt(tmp_path, sources, corpus, cli):
    """Vocabulary, preparation, a run from a config, going on from its backbone, perplexity."""
    file = sources[0].files[0]
    vocabulary, prepared = tmp_path / "spiece.model", tmp_path / "prepared"
    kind = ("--kind", "sentencepiece", "--size", 4400, "--out", vocabulary)
    assert cli("pretrain", "vocab", file, *kind)[0] == 0
    to = ("--vocab", vocabulary, "--set", "heldout=0.2", "--out", prepared)
    assert cli("pretrain", "prepare", file, *to)[0] == 0
    about = json.loads((prepared / "corpus.json").read_text())
    assert (about["vocab_kind"], (prepared / "spiece.model").is_file()) == ("sentencepiece", True)
    config, out = tmp_path / "c.json", tmp_path / "out"
    config.write_text(json.dumps({**SHAPE, "vocab_size": about["vocab_size"]}))
    start = ("--corpus", prepared, "--config", config, "--steps", 30, "--lr", 1e-2, "--warmup", 3)
    code, text, error = cli("pretrain", "run", "--out", out, *start, *SMALL)
    assert code == 0, error
    assert "nats/character (causal): verse" in text
    assert events(out)[0]["settings"]["width"] == SHAPE["n_positions"]
    losses = train_losses(out)
    assert losses[-1][1] < losses[0][1] - 0.5
    backbone = out / "backbone"
    judge = perplexity_under(backbone)
    good, bad = judge([poem(5), "".join(reversed(poem(5)))])
    assert good < bad
    again = ("--corpus", prepared, "--backbone", backbone, "--steps", 1, "--out", tmp_path / "on")
    assert cli("pretrain", "run", *again, *SMALL)[0] == 0
    assert train_losses(tmp_path / "on")[0][1] < losses[0][1] - 0.5
    code, _, error = cli("pretrain", "run", "--out", out, "--resume", "--steps", 31)
    assert code == 0, error


def test_the_written_backbone_is_cpm_1s_form_in_half_precision(corpus, config, tmp_path):
    chosen = replace(SETTINGS, width=32, steps=2)
    model = run_form(CPM1, corpus, config, tmp_path / "out", chosen)
    folder = open_folder(tmp_path / "out/backbone")
    assert (folder.config.family, folder.trained) == ("causal", True)
    assert {path.name for path in folder.path.iterdir()} == CPM1.files
    assert len({path.stat().st_mode for path in folder.path.iterdir()}) == 1
    assert folder.vocabulary.read_bytes() == corpus.vocabulary.read_bytes()
    loaded = folder.open(torch.float32)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
    tokenizer = folder.tokenizer()
    objective = CPM1.objective(loaded.config, tokenizer, width=16, shortest=1)
    texts = generate(loaded, tokenizer, objective, "天地", n=2, length=5, seed=1)
    assert len(texts) == 2


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"model_type": "llama"}, (), "expected an object with model_type gpt2"),
        ({"n_head": 3}, (), "n_embd is 16, expected a multiple of n_head (3)"),
        ({"n_layer": 0}, (), "n_layer is 0, expected a whole number above 0"),
        ({"n_layre": 2}, (), "no key 'n_layre'. Did you mean 'n_layer'?"),
        ({"vocab_size": 9}, (), "vocab_size is 9, but the corpus has"),
        ({"tie_word_embeddings": False}, (), "CPM-1's head is its embedding"),
        ({}, ("--width", 33), "--width 33: expected 2 to 32"),
        ({}, ("--shortest", 8), "documents are laid end to end"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(corpus, config, cli, change, words, message):
    assert_refused(cli, corpus, config, change, words, message)


def test_a_backbone_of_another_form_is_refused(corpus, tmp_path, cli):
    start = ("--corpus", corpus.path, "--backbone", "cpm-ant-tiny", "--steps", 1)
    code, _, error = cli("pretrain", "run", "--out", tmp_path / "out", *start)
    assert (code, "not the vocabulary that" in error, error.count("\n")) == (2, True, 1)


def test_a_corpus_of_an_unknown_kind_is_refused(corpus, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(corpus.path, copy)
    about = json.loads((copy / "corpus.json").read_text()) | {"vocab_kind": "another"}
    (copy / "corpus.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="of the kind 'another'"):
        Corpus.open(copy)
