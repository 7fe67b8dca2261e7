"""Small corpora and runs that the tests of pre-training share."""

import json
import random
import signal

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


def make_corpus(folder, names=("verse", "other")):
    """Sixty poems a source, a fifth of them held out."""
    sources = []
    for first, name in enumerate(names):
        poems = [f"{1000 * first + i}\n" + poem(1000 * first + i) for i in range(60)]
        path = write_documents(folder / f"{name}.jsonl", poems)
        sources.append(TextSource(name, (path,), heldout=0.2))
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
