"""Small corpora and runs that the tests of pre-training share."""

import json
import random
import signal

import pytest
import torch

from cpm_tune.backbone.ant.config import CPMAntConfig
from cpm_tune.backbone.ant.pretraining import PRETRAINING as ANT
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.backbone.opening import random_backbone
from cpm_tune.pretrain import train as training
from cpm_tune.pretrain.prepare import prepare
from cpm_tune.pretrain.sources import TextSource
from cpm_tune.pretrain.train import Intervals, Settings, train
from cpm_tune.pretrain.vocabulary import build_vocabulary

CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
TEXT_CHARACTERS = CHARACTERS + "寒来暑往秋收冬藏闰余成岁律吕调阳"
EVERY_STEP = Intervals(log_steps=1, checkpoint_minutes=1e9, heldout_minutes=1e9)
SETTINGS = Settings(
    weights={"verse": 2.0, "other": 1.0},
    steps=8,
    rows=4,
    width=64,
    shortest=8,
    lr=1e-2,
    warmup=2,
    bf16=False,
    compiled=False,
)
SMALL = ("--rows", 2, "--no-compile", "--precision", "fp32", "--log-steps", 1)
SHAPE = {
    "dim_model": 32,
    "dim_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "dim_head": 16,
    "position_bias_num_buckets": 8,
    "position_bias_max_distance": 16,
    "prompt_types": 3,
    "prompt_length": 2,
    "segment_types": 3,
}


def poem(seed):
    drawn = random.Random(seed)
    length = drawn.randrange(5, 8)
    lines = []
    for _ in range(4):
        start, stride = drawn.randrange(16), drawn.randrange(1, 16)
        lines.append("".join(CHARACTERS[(start + stride * j) % 16] for j in range(length)))
    return "，\n".join(lines) + "。"


def random_text(seed, lines=5, width=12):
    drawn = random.Random(seed)
    texts = ("".join(drawn.choices(TEXT_CHARACTERS, k=width)) for _ in range(lines))
    return "\n".join(text + "。" for text in texts)


def write_documents(path, texts):
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def make_sources(folder, names=("verse", "other"), title="《{}》"):
    """Sixty poems per source, each below its title, a fifth of them held out."""
    sources = []
    for first, name in enumerate(names):
        poems = [f"{title.format(n)}\n{poem(n)}" for n in range(1000 * first, 1000 * first + 60)]
        path = write_documents(folder / f"{name}.jsonl", poems)
        sources.append(TextSource(name, (path,), heldout=0.2))
    return sources


def make_corpus(folder, names=("verse", "other")):
    """CPM-Ant's vocabulary and corpus of these sources."""
    sources = make_sources(folder, names, title="{}")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(build_vocabulary(sources, 180, front=ANT.front)) + "\n")
    return prepare(sources, vocabulary, folder / "prepared")


def config_for(corpus, **other):
    return CPMAntConfig(vocab_size=corpus.about["vocab_size"], **{**SHAPE, **other})


def write_config(path, corpus, **change):
    path.write_text(json.dumps(config_for(corpus).to_dict() | change))
    return path


def run(corpus, out, settings=SETTINGS, seed=1, layers=2, **options):
    """Train through the library; returns the model."""
    model = random_backbone(config_for(corpus, num_layers=layers), seed, torch.float32)
    tokenizer = Tokenizer.from_file(corpus.vocabulary)
    options.setdefault("intervals", EVERY_STEP)
    out.mkdir(exist_ok=True)
    train(model, tokenizer, corpus, settings, out, **options)
    return model


def make_config(path, corpus, shape):
    """A config file of transformers' keys, with the corpus's number of entries."""
    path.write_text(json.dumps({**shape, "vocab_size": corpus.about["vocab_size"]}))
    return path


def run_form(form, corpus, config, out, settings, seed=1, **options):
    """Train a model of a family's `PRETRAINING` and config file; returns it."""
    model = form.random(form.config(config), seed, torch.float32)
    out.mkdir(exist_ok=True)
    train(model, corpus.tokenizer(), corpus, settings, out, **options)
    return model


def assert_resumes_exactly(train_to, folder, monkeypatch, steps=SETTINGS.steps):
    """`train_to(out, **options)`, stopped in step 5 and resumed: the losses and weights of one
    that nobody stopped."""
    whole = train_to(folder / "whole")
    with monkeypatch.context() as patch:
        interrupt_in(5, patch)
        with pytest.raises(KeyboardInterrupt):
            train_to(folder / "parts")
    state = torch.load(folder / "parts/checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 5  # the step that was under way is whole
    torch.manual_seed(99)
    resumed = train_to(folder / "parts", seed=99, resume=True)
    assert train_losses(folder / "parts") == train_losses(folder / "whole")
    assert train_losses(folder / "whole")[-1][0] == steps
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def assert_refused(cli, corpus, config, change, words, message):
    """`pretrain run` with a changed config file: one sentence, and no folder."""
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    out = config.parent / "out"
    start = ("--corpus", corpus.path, "--config", config, "--steps", 1, *SMALL)
    code, _, error = cli("pretrain", "run", "--out", out, *start, *words)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert not out.exists()


def events(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def train_losses(out):
    return [
        (e["step"], e["loss"], e["objectives"], e["sources"], e["lr"])
        for e in events(out)
        if e["event"] == "train"
    ]


def interrupt_in(step, monkeypatch):
    """Press Ctrl-C in the middle of a step."""
    original = training.TrainingBatches.batch

    def batch(self, number):
        if number == step:
            signal.raise_signal(signal.SIGINT)
        return original(self, number)

    monkeypatch.setattr(training.TrainingBatches, "batch", batch)
