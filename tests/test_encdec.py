"""Encoder-decoders as backbones: the same logits as transformers' own forward, whatever is scored
together."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CLI
from encdec_folders import KINDS, make_folder, make_model, write_config
from family_checks import check_cache, made_once

from cpm_tune.backbone.encdec.config import PRESETS, EncDecConfig
from cpm_tune.backbone.example import Answer, Example
from cpm_tune.backbone.families import open_folder
from cpm_tune.backbone.padded_batch import similar_rows
from cpm_tune.errors import UserError
from cpm_tune.schema.spec import Encoding

FORMS = ("answer", "sentinel", "blank")
TEXTS = ["春天来了花都开了", "天", "今天 天气 很好", "what is it", "水火树"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of models by kind, each made once."""
    return made_once(tmp_path_factory.mktemp("encdec"), make_folder)


def theirs(path: Path) -> Any:
    """Transformers' model with a folder's weights, its head tied only if the config says so."""
    return make_model(json.loads((path / "config.json").read_text()))


def opened(path: Path, form: str | None = None) -> tuple[Any, Any, Any]:
    """Model, layout and tokenizer."""
    folder = open_folder(path)
    tokenizer = folder.tokenizer()
    model = folder.open(torch.float32).eval()
    return model, folder.layout(Encoding(target=form), tokenizer), tokenizer


def example(layout: Any, tokenizer: Any, text: str, answers: list[str]) -> Example:
    ids = (tuple(tokenizer.encode(answer)) for answer in answers)
    lead = layout.lead
    candidates = tuple(Answer(0, (*lead, *each), len(lead)) for each in ids)
    return Example(text, (tuple(tokenizer.opening(text)),), candidates, 0, False)


ANSWERS = ["是", "不", "不是的", "不是花"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_are_those_of_transformers_forward_one_by_one(
    kind: str, form: str, made: Any
) -> None:
    model, layout, tokenizer = opened(made(kind), form)
    other = theirs(made(kind))
    examples = [example(layout, tokenizer, text, ANSWERS) for text in TEXTS]
    (logits,) = model.scores(layout.collate(examples))
    tokens = torch.arange(3 * len(logits)).view(-1, 3) % 7000
    (some,) = model.scores(layout.collate(examples), tokens)
    sentinel = (tokenizer.sentinels[0],) * (form == "blank")
    expected = []
    for one in examples:
        for answer in one.candidates:
            encoder = torch.tensor([[*one.contexts[0], *sentinel, tokenizer.eos]])
            decoder = torch.tensor([[0, *answer.ids[:-1]]])
            expected.append(other(input_ids=encoder, decoder_input_ids=decoder).logits[0])
    whole = torch.cat(expected)
    assert whole.std() > 0.3
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(some, logits.gather(1, tokens), atol=1e-6, rtol=0)


@torch.no_grad()
def test_options_scored_together_are_scored_as_alone(made: Any) -> None:
    model, layout, tokenizer = opened(made("mt5"), "sentinel")
    long = [example(layout, tokenizer, "春" * n, ANSWERS) for n in (3, 90, 5, 80, 4, 7, 60) * 4]
    batch = layout.collate(long)
    assert len(similar_rows(batch.ids, batch.lengths, together=False)) > 1
    assert len(batch.ids) == len(long), "a context is encoded once for all of its options"
    (logits,) = model.scores(batch)
    alone = []
    for one in long:
        for answer in one.candidates:
            single = Example("", one.contexts, (answer,), 0, False)
            alone += model.scores(layout.collate([single]))
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beams", [3, 1])
@pytest.mark.parametrize("form", FORMS)
def test_the_cache_gives_what_computing_anew_gives(form: str, beams: int, made: Any) -> None:
    model, layout, tokenizer = opened(made("t5-v1_1"), form)
    check_cache(model, layout, [tuple(tokenizer.opening(text)) for text in TEXTS], beams)


@torch.no_grad()
def test_the_head_is_the_files_own_where_transformers_ties_it(made: Any, tmp_path: Path) -> None:
    """The trap of transformers 5: in a new mT5 that takes a state, the head is the embedding."""
    from safetensors.torch import load_file
    from transformers import MT5Config, MT5ForConditionalGeneration

    tied = MT5ForConditionalGeneration(MT5Config.from_pretrained(made("mt5"))).eval()
    state = load_file(made("mt5") / "model.safetensors")
    same = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    tied.load_state_dict({**state, **dict.fromkeys(same, state["shared.weight"])})
    model, layout, tokenizer = opened(made("mt5"))
    ids = tuple(tokenizer.opening(TEXTS[0]))
    batch = layout.collate([Example("", (ids,), (Answer(0, (5,)),), 0, False)])
    (logits,) = model.scores(batch)
    given = {"input_ids": torch.tensor([[*ids, 1]]), "decoder_input_ids": torch.tensor([[0]])}
    wrong, right = tied(**given).logits[0], theirs(made("mt5"))(**given).logits[0]
    torch.testing.assert_close(logits, right, atol=1e-5, rtol=1e-5)
    assert (wrong - right).abs().max() > 1, "transformers ties no more: remove what is said of it"
    control = open_folder(made("mt5")).open(torch.float32, random_seed=1)
    assert not torch.equal(control.lm_head.weight, control.shared.weight)
    folder, out = open_folder(made("mt5")), tmp_path / "out"
    out.mkdir()
    folder.save(model, out, "hf", trained=True)
    again, _, _ = opened(out)
    assert torch.equal(next(again.scores(batch)), logits)


def test_a_head_that_differs_from_what_the_config_ties_is_refused(
    made: Any, tmp_path: Path
) -> None:
    folder = changed(made("mt5"), tmp_path, tie_word_embeddings=True)
    with pytest.raises(UserError, match="differs from shared"):
        opened(folder)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_saved_it_is_the_same_folder(kind: str, made: Any, tmp_path: Path) -> None:
    folder, out = open_folder(made(kind)), tmp_path / "out"
    out.mkdir()
    folder.save(folder.open(torch.float32), out, "hf", trained=True)
    again = open_folder(out)
    assert (again.config, again.trained) == (folder.config, True)
    assert again.tokenizer().sha256 == folder.tokenizer().sha256
    before, after = (f.open(torch.float32).state_dict() for f in (folder, again))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def test_random_weights_are_the_same_for_a_seed_and_finite(made: Any) -> None:
    folder = open_folder(made("mt5"))
    layout, tokenizer = folder.layout(Encoding(), folder.tokenizer()), folder.tokenizer()
    batch = layout.collate([example(layout, tokenizer, "春天", ["是"])])
    models = [folder.open(torch.float32, random_seed=seed).eval() for seed in (1, 1, 2)]
    first, again, other = (next(model.scores(batch)) for model in models)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert first.isfinite().all()
    assert 0.1 < first.std() < 10


def test_files_of_torch_save_and_shards_are_read(made: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = changed(made("t5"), tmp_path)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    same = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    torch.save(
        {**state, **dict.fromkeys(same, state["shared.weight"])}, folder / "pytorch_model.bin"
    )
    before, after = opened(made("t5"))[0].state_dict(), opened(folder)[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before | after)


def changed(made: Path, tmp_path: Path, **values: Any) -> Path:
    """A copy of a folder with other values in config.json."""
    folder = tmp_path / "changed"
    shutil.copytree(made, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"quantization_config": {"bits": 4}}, "quantised by another library"),
        ({"num_heads": 5}, "shape"),
        ({"num_layers": 10**9}, "expected a whole number from 1 to 1000"),
        ({"num_layers": 3}, "missing encoder.block.2"),
        ({"d_ff": "wide"}, "expected a whole number"),
        ({"feed_forward_proj": "gated-tanh"}, "expected one of relu"),
        ({"dropout_rate": 1.0}, "expected less than 1"),
        ({"vocab_size": 100}, "not this model's vocabulary"),
        ({"eos_token_id": 10**6}, "outside of the vocabulary"),
        ({"relative_attention_num_buckets": 3}, "an even number"),
        ({"layer_norm_epsilon": 0.0}, "expected more"),
        ({"tie_word_embeddings": "no"}, "expected true or false"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    values: dict[str, Any], words: str, made: Any, tmp_path: Path
) -> None:
    path = changed(made("mt5"), tmp_path, **values)
    with pytest.raises(UserError, match=words) as refused:
        opened(path)
    assert "\n" not in str(refused.value)


def test_a_folder_without_vocabulary_or_weights_is_one_sentence(made: Any, tmp_path: Path) -> None:
    folder = changed(made("mt5"), tmp_path)
    (folder / "spiece.model").rename(folder / "other.model")
    with pytest.raises(UserError, match="no vocabulary"):
        open_folder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is not read"):
        open_folder(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(UserError, match="ByT5 reads bytes"):
        open_folder(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "spiece.model").write_bytes(b"none")
    with pytest.raises(UserError, match="not a sentencepiece model"):
        open_folder(folder).tokenizer()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        open_folder(folder)


def test_recognising_and_reading_a_config_import_no_torch(made: Any) -> None:
    code = (
        "import sys; from pathlib import Path; from cpm_tune.backbone.families import open_folder;"
        f"f = open_folder(Path({str(made('mt5'))!r})); f.tokenizer().encode('春'); f.sha256();"
        "f.config.shape; f.config.roles; f.config.values;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sizes_are_the_published_ones() -> None:
    sizes = {
        "mt5-small": 300_176_768,
        "cpm-2": 11_087_097_856,
        "cpm-2-bilingual": 11_297_861_632,
    }
    for name, n in sizes.items():
        model = PRESETS[name].skeleton()
        assert sum(parameter.numel() for parameter in model.parameters()) == n


def test_a_config_read_back_is_the_same(tmp_path: Path) -> None:
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        config = EncDecConfig.of(write_config(folder, kind))
        assert EncDecConfig.of(config.values) == config


def test_the_tokenizer_is_sentencepieces(made: Any) -> None:
    import sentencepiece

    _, layout, tokenizer = opened(made("mt5"))
    model = sentencepiece.SentencePieceProcessor(model_file=str(made("mt5") / "spiece.model"))
    for text in (*TEXTS, "a b\nc  d", "，。！"):
        assert tokenizer.opening(text) == model.encode(text)
        assert tokenizer.decode(tokenizer.opening(text)) == model.decode(model.encode(text))
        pieces = "".join(tokenizer.pieces(tokenizer.opening(text)))
        assert pieces.strip() == tokenizer.decode(tokenizer.opening(text)).strip()
    space = model.piece_to_id("\u2581")
    assert tokenizer.opening("春") == [space, *tokenizer.encode("春")]
    assert (tokenizer.eos, tokenizer.pad, tokenizer.unk) == (1, 0, 2)
    first = len(model) + 99
    assert tokenizer.sentinels[:2] == (first, first - 1)
    assert {0, 2, first, first - 1} <= set(tokenizer.never_written)
    assert 1 not in tokenizer.never_written
    for text in ("<extra_id_0>", "</s>", "<pad>"):
        assert not {0, 1, *tokenizer.sentinels} & set(tokenizer.encode(text)), "it is text"
    assert layout.first_free >= max(tokenizer.sentinels) + 1


def test_a_t5_that_transformers_saved_again_has_its_own_head(made: Any, tmp_path: Path) -> None:
    """transformers 5 writes that the head of every T5 is tied, also where it is not."""
    folder = made("t5-v1_1")
    saved = changed(folder, tmp_path, tie_word_embeddings=True, scale_decoder_outputs=False)
    before, after = opened(folder)[0].state_dict(), opened(saved)[0].state_dict()
    assert before.keys() == after.keys()
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"])


def test_a_prompt_keeps_what_the_vocabulary_lacks_and_a_short_limit_is_told(
    made: Any, cli: CLI
) -> None:
    """As tuning and transformers do; CPM-Ant alone leaves it out."""
    words = ("generate", "--backbone", made("mt5"), "--greedy", "--max-new-tokens", 4)
    code, plain, error = cli(*words, "今天")
    assert (code, error) == (0, "")
    code, other, error = cli(*words, "今天龘")
    assert code == 0
    assert "lacks 龘; read as the unknown entry" in error
    assert other != plain
    code, _, error = cli(*words, "今天", "--max-length", 5)
    assert code == 2
    assert "with 2 around it and 4 to write" in error


@torch.no_grad()
def test_blanks_are_filled_by_sentinels_with_as_many_tokens_as_it_takes(
    made: Any, cli: CLI, tmp_path: Path
) -> None:
    """Greedy, against a search by hand over whole sequences of transformers' model."""
    import cpm_tune

    backbone = cpm_tune.load_backbone(made("mt5"))
    tokenizer, other = backbone.tokenizer, theirs(made("mt5"))
    texts = ["春天____了花____开了", "今天____好"]
    how = {"blank_tokens": (1, 3), "beams": 1, "repetition_penalty": 1.0}
    for text, one in zip(texts, backbone.infill(texts, **how), strict=True):
        pieces, first = text.split("____"), tokenizer.sentinels
        ids = [*tokenizer.opening(pieces[0])]
        for n, piece in enumerate(pieces[1:]):
            ids += [first[n], *tokenizer.encode(piece)]
        written, fills = [0, first[0]], list[str]()
        for n in range(len(pieces) - 1):
            fill = list[int]()
            while True:
                given = torch.tensor([[*ids, tokenizer.eos]]), torch.tensor([written])
                logits = other(input_ids=given[0], decoder_input_ids=given[1]).logits[0, -1]
                end = logits[first[n + 1]].clone()
                logits[[*tokenizer.never_written, tokenizer.eos]] = -torch.inf
                if len(fill) == 3:
                    logits[:] = -torch.inf
                if fill:
                    logits[first[n + 1]] = end
                written.append(int(logits.argmax()))
                if written[-1] == first[n + 1]:
                    break
                fill.append(written[-1])
            fills.append(tokenizer.decode(fill))
        assert one.fills == tuple(fills)
        assert one.text == "".join(map("".join, zip(pieces, [*fills, ""], strict=True)))
    beams = backbone.infill(texts, num=3, blank_tokens=(1, 3))
    assert [text.rank for text in beams] == [0, 1, 2] * 2
    assert all(len(text.fills) == 2 - text.of for text in beams)
    assert all(beams[n].score >= beams[n + 1].score for n in (0, 1, 3, 4))
    exact = backbone.infill("春天____{2}了", beams=2)[0]
    assert exact.n_tokens == 3
    drawn = backbone.infill("春天____了", num=2, temperature=1.0, seed=3)
    assert len(drawn) == 2
    code, text, error = cli("generate", "--infill", "春____开了。", "--backbone", made("mt5"))
    assert (code, text.startswith("春")) == (0, True), error
    many = "____花" * 101
    code, _, error = cli("generate", "--infill", many, "--backbone", made("mt5"))
    assert (code, "has sentinels for 99" in error) == (2, True), error
