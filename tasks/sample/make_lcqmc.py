"""Make the sample data of LCQMC (Chinese question matching) that ships with cpm-tune.

Pairs of everyday Chinese questions in LCQMC's official form; label 1 when both ask the same thing.
Every sentence was composed for this project; the hand-written topics, intents, forms and fillers
are in lcqmc_topics.json. Code: Apache-2.0 with the project; data: CC0-1.0.

A *combo* is one intent with one filler and belongs to one split, so no sentence occurs in two; dev
and test hold seen intents with unseen fillers as well as unseen intents. Each chosen sentence is
twice in its split, once in a positive and once in a negative pair, so it tells nothing about the
label. Negatives are 25% near misses (another filler, aspect or direction), 75% of another topic.

Scores on it show that the harness runs and that a model learns; they are NOT comparable with scores
on the real LCQMC. Regenerate: `python tasks/sample/make_lcqmc.py [--out DIR] [--seed N]`; the same
seed makes the same bytes on every machine, with the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
TOPICS_FILE = HERE / "lcqmc_topics.json"
SEED = 20
SIZES = {"train": 2400, "dev": 400, "test": 400}
NEAR_SHARE = 0.25  # of the negatives
LIGHT_SHARE = 0.7  # of the positives: only a few words exchanged

PARAPHRASE = "paraphrase"
LIGHT_PARAPHRASE = "light_paraphrase"
NEAR_FILLER = "near_filler"
NEAR_ASPECT = "near_aspect"
NEAR_REVERSAL = "near_reversal"
MISMATCH = "mismatch"
POSITIVE_TYPES = (PARAPHRASE, LIGHT_PARAPHRASE)
NEAR_TYPES = (NEAR_FILLER, NEAR_ASPECT, NEAR_REVERSAL)

ASKING_STARTS = ("怎么", "怎样", "如何", "为什么", "有没有", "有什么", "哪", "什么", "几")
QUESTION = (
    "怎|如何|咋|什么|啥|吗|哪|几|多少|多久|多大|多长|谁|还是|(.)不\\1|有没有|可不可以|没$|不$"
)
PARTICLES = {
    "怎么办": "啊呢",
    "咋办": "啊呀",
    "什么": "呢啊",
    "为什么": "呢啊",
    "多少钱": "啊呢",
    "哪里": "呢啊",
    "咋回事": "啊呀",
    "如何解决": "呢",
    "几天": "啊呢",
}

# Exchanges that keep the meaning of a question: what to look for, what may stand there.
EXCHANGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("(?<!该)怎么办", ("咋办", "该怎么办")),
    ("咋办", ("怎么办", "该怎么办")),
    ("怎么(?![办样都])", ("如何", "怎样")),
    ("怎样(?=[^的，])", ("怎么", "如何")),
    ("如何", ("怎么", "怎样")),
    ("咋(?!办)", ("怎么",)),
    ("为什么", ("为啥",)),
    ("为啥", ("为什么",)),
    ("有什么(?=办法|好办法)", ("有没有", "有啥")),
    ("(?<!为)什么", ("啥",)),
    ("(?<!为)啥", ("什么",)),
    ("多长时间", ("多久",)),
    ("多久", ("多长时间",)),
    ("大概", ("大约",)),
    ("哪里", ("哪儿",)),
    ("哪儿", ("哪里",)),
    ("能不能", ("可不可以",)),
    ("可不可以", ("能不能",)),
    ("技巧|诀窍", ("窍门",)),
    ("窍门", ("技巧",)),
    ("(?<=[隔等要玩前得])几天", ("多少天",)),
    ("(?<![不较最更])合适$", ("比较合适",)),
    ("好吗$", ("好不好",)),
    ("行吗$", ("行不行",)),
    ("行不行$", ("行吗",)),
    ("好不好$", ("好吗",)),
    ("求推荐", ("请推荐", "求大家推荐")),
    ("^求一", ("谁能给一", "想要一")),
    ("方法$", ("办法",)),
)

T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    """Intents that share a topic and a slot; each is a near miss of the others."""

    topic: str
    key: str
    fillers: tuple[str, ...]  # empty: no slot; "甲>乙": two slots with a direction
    intents: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sentence:
    """One realisation of an intent; ``combo`` names what it asks."""

    base: str
    text: str
    topic: str
    block: str
    intent: int
    filler: str

    @property
    def combo(self) -> tuple[str, int, str]:
        """What the sentence asks: the intent with its filler."""
        return (self.block, self.intent, self.filler)


@dataclass(frozen=True)
class TypedPair:
    """A pair with its type, which never reaches the data files."""

    sentence1: Sentence
    sentence2: Sentence
    label: int
    kind: str


def shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    """A shuffled copy; only ``rng.random()`` is used, whose stream Python keeps stable."""
    keys = [(rng.random(), i) for i in range(len(items))]
    return [items[i] for _, i in sorted(keys)]


def load_blocks(path: Path = TOPICS_FILE) -> list[Block]:
    """Read and check the hand-written material."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    blocks: list[Block] = []
    for topic in raw["topics"]:
        for number, block in enumerate(topic["blocks"]):
            fillers = tuple(block["fillers"])
            intents = tuple(tuple(forms) for forms in block["intents"])
            slots = set() if not fillers else {"{a}", "{b}"} if ">" in fillers[0] else {"{a}"}
            for forms in intents:
                for form in forms:
                    if {s for s in ("{a}", "{b}") if s in form} != slots:
                        raise ValueError(f"slots of {form!r} do not fit its block")
            blocks.append(Block(topic["topic"], f"{topic['topic']}/{number}", fillers, intents))
    return blocks


def fill(form: str, filler: str) -> str:
    """Put a filler ("甲" or "甲>乙") into a form."""
    a, _, b = filler.partition(">")
    return form.replace("{a}", a).replace("{b}", b)


def colour(text: str, rng: random.Random) -> str:
    """Add what people add when they type: 请问, a particle, a question mark."""
    if text.startswith(ASKING_STARTS) and rng.random() < 0.15:
        text = "请问" + text
    for ending in sorted(PARTICLES):
        if text.endswith(ending) and rng.random() < 0.15:
            choices = PARTICLES[ending]
            text += choices[int(rng.random() * len(choices))]
            break
    draw = rng.random()
    if re.search(QUESTION, text) and "求" not in text:
        text += "？" if draw < 0.35 else "?" if draw < 0.40 else ""
    return text


def exchange(text: str, rng: random.Random) -> str:
    """The same question with one or two words exchanged (unchanged if nothing fits)."""
    fitting = [rule for rule in EXCHANGES if re.search(rule[0], text)]
    done = text
    for pattern, choices in shuffled(fitting, rng)[: 1 + int(rng.random() * 2)]:
        changed = re.sub(pattern, choices[int(rng.random() * len(choices))], done, count=1)
        if changed != text:
            done = changed
    return done


def assign_fillers(block: Block, index: int, rng: random.Random) -> dict[str, str]:
    """Filler (or "" in a block without a slot) to split; ``index`` counts the blocks of a kind.

    Some blocks go to dev or test as a whole (intents unseen in train); of every other slot block
    two fillers go to dev or to test. A filler and its reversal stay together.
    """
    if not block.fillers:
        return {"": {1: "dev", 5: "test"}.get(index % 8, "train")}
    directed = ">" in block.fillers[0]
    whole = {3: "dev", 8: "test"}.get(index % 10)
    if whole and not directed:
        return dict.fromkeys(block.fillers, whole)
    groups: dict[tuple[str, ...], list[str]] = {}
    for filler in block.fillers:
        groups.setdefault(tuple(sorted(filler.split(">"))), []).append(filler)
    order = shuffled(sorted(groups), rng)
    held = ("dev", "test") if directed else ("dev", "dev") if index % 2 else ("test", "test")
    splits: dict[str, str] = {}
    for group, split in zip(order, held + ("train",) * len(order), strict=False):
        splits.update(dict.fromkeys(groups[group], split))
    return splits


def make_combos(blocks: Sequence[Block], rng: random.Random) -> dict[str, list[list[Sentence]]]:
    """Every combo of every split, each a list of its realisations."""
    combos: dict[str, list[list[Sentence]]] = {split: [] for split in SIZES}
    seen: dict[str, tuple[str, int, str]] = {}
    counts = {True: 0, False: 0}
    for block in blocks:
        index = counts[bool(block.fillers)]
        counts[bool(block.fillers)] += 1
        for filler, split in sorted(assign_fillers(block, index, rng).items()):
            for number, forms in enumerate(block.intents):
                combo = []
                for form in forms:
                    base = fill(form, filler)
                    if base in seen:
                        raise ValueError(f"{base!r} occurs twice: {seen[base]}")
                    seen[base] = (block.key, number, filler)
                    text = colour(base, rng)
                    combo.append(Sentence(base, text, block.topic, block.key, number, filler))
                combos[split].append(combo)
    return combos


def jaccard(a: str, b: str) -> float:
    """Overlap of the two sets of characters."""
    left, right = set(a), set(b)
    return len(left & right) / len(left | right)


def lightly(sentence: Sentence, taken: set[str], rng: random.Random) -> Sentence | None:
    """A sentence that differs from ``sentence`` in a few words, if one can be made."""
    base = exchange(sentence.base, rng)
    if base in taken:
        return None
    taken.add(base)
    return replace(sentence, base=base, text=colour(base, rng))


def make_positives(
    combos: Sequence[list[Sentence]], count: int, taken: set[str], rng: random.Random
) -> list[TypedPair]:
    """Paraphrase pairs; no sentence is used twice.

    Combos without a slot (every form new) and with a direction (few) come first.
    """
    first: list[TypedPair] = []
    later: list[TypedPair] = []
    for combo in shuffled(combos, rng):
        forms = shuffled(combo, rng)
        pairs: list[TypedPair] = []
        while forms:
            one = forms.pop()
            light = lightly(one, taken, rng) if rng.random() < LIGHT_SHARE else None
            if light is not None:
                pairs.append(TypedPair(one, light, 1, LIGHT_PARAPHRASE))
            elif forms:
                pairs.append(TypedPair(one, forms.pop(), 1, PARAPHRASE))
        if not combo[0].filler or ">" in combo[0].filler:
            first = pairs[: 1 if combo[0].filler else 2] + first
        else:
            first.append(pairs[0])
            later.extend(pairs[1:])
    pool = first + later
    if len(pool) < count:
        raise ValueError(f"only {len(pool)} paraphrase pairs for {count}")
    return pool[:count]


def near_kind(a: Sentence, b: Sentence) -> str | None:
    """How two sentences nearly mean the same, or None."""
    if a.block != b.block or a.combo == b.combo:
        return None
    if a.intent == b.intent:
        if a.filler.split(">") == b.filler.split(">")[::-1]:
            return NEAR_REVERSAL
        return NEAR_FILLER
    return NEAR_ASPECT if a.filler == b.filler else None


def make_negatives(sentences: Sequence[Sentence], rng: random.Random) -> list[TypedPair]:
    """Pair up all the sentences, each once, into near misses and topic mismatches."""
    count = len(sentences) // 2
    near_count = round(count * NEAR_SHARE)
    by_block: dict[str, list[int]] = {}
    for i, sentence in enumerate(sentences):
        by_block.setdefault(sentence.block, []).append(i)
    edges: list[tuple[float, int, int, str]] = []
    for members in by_block.values():
        for x, i in enumerate(members):
            for j in members[x + 1 :]:
                kind = near_kind(sentences[i], sentences[j])
                if kind is not None:
                    overlap = jaccard(sentences[i].text, sentences[j].text)
                    bonus = 0.3 if kind == NEAR_REVERSAL else 0.0
                    edges.append((overlap + bonus + rng.random() * 0.5, i, j, kind))
    used: set[int] = set()
    chosen: list[tuple[int, int, str]] = []
    for _, i, j, kind in sorted(edges, reverse=True):
        if i not in used and j not in used:
            used.update((i, j))
            chosen.append((i, j, kind))
    if len(chosen) < near_count:
        raise ValueError(f"only {len(chosen)} near misses for {near_count}")
    near = shuffled(chosen, rng)[:near_count]
    taken = {i for edge in near for i in edge[:2]}
    rest = shuffled([s for i, s in enumerate(sentences) if i not in taken], rng)
    half = len(rest) // 2
    left, right = rest[:half], rest[half:]
    for i in range(half):  # swap away the few pairs of one topic
        k = i
        while left[i].topic == right[i].topic:
            k = (k + 1) % half
            if left[k].topic != right[i].topic and left[i].topic != right[k].topic:
                right[i], right[k] = right[k], right[i]
    negatives = [TypedPair(sentences[i], sentences[j], 0, kind) for i, j, kind in near]
    return negatives + [TypedPair(a, b, 0, MISMATCH) for a, b in zip(left, right, strict=True)]


def typed_pairs(seed: int = SEED) -> dict[str, list[TypedPair]]:
    """Every split's pairs with their types, in the order of the data files."""
    rng = random.Random(seed)
    combos = make_combos(load_blocks(), rng)
    taken = {s.base for split in SIZES for combo in combos[split] for s in combo}
    result: dict[str, list[TypedPair]] = {}
    for split, size in SIZES.items():
        positives = make_positives(combos[split], size // 2, taken, rng)
        sentences = [s for p in positives for s in (p.sentence1, p.sentence2)]
        pairs = shuffled(positives + make_negatives(sentences, rng), rng)
        result[split] = [
            TypedPair(p.sentence2, p.sentence1, p.label, p.kind) if rng.random() < 0.5 else p
            for p in pairs
        ]
    return result


def rows(pairs: Sequence[TypedPair]) -> list[dict[str, int | str]]:
    """The pairs in LCQMC's official form."""
    return [
        {"id": i, "sentence1": p.sentence1.text, "sentence2": p.sentence2.text, "label": p.label}
        for i, p in enumerate(pairs)
    ]


def overlap_baseline(train: Sequence[TypedPair], test: Sequence[TypedPair]) -> tuple[float, float]:
    """Threshold on the character Jaccard chosen on train, and its accuracy on test."""

    def scores(pairs: Sequence[TypedPair]) -> list[tuple[float, int]]:
        return [(jaccard(p.sentence1.text, p.sentence2.text), p.label) for p in pairs]

    def accuracy(scored: Sequence[tuple[float, int]], threshold: float) -> float:
        return sum((s >= threshold) == bool(y) for s, y in scored) / len(scored)

    known = scores(train)
    best = max(sorted({s for s, _ in known}), key=lambda t: accuracy(known, t))
    return best, accuracy(scores(test), best)


def write(out: Path, seed: int = SEED) -> dict[str, list[TypedPair]]:
    """Write the three files below ``out``/lcqmc and give back the typed pairs."""
    splits = typed_pairs(seed)
    folder = out / "lcqmc"
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(pairs)]
        (folder / f"{split}.jsonl").write_bytes("".join(lines).encode("utf-8"))
    return splits


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the LCQMC sample data of cpm-tune.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder that gets lcqmc/")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args(argv)
    blocks = load_blocks()
    splits = write(args.out, args.seed)
    print(
        f"{len({b.topic for b in blocks})} topics, {sum(len(b.intents) for b in blocks)} intents, "
        f"{sum(len(forms) for b in blocks for forms in b.intents)} forms"
    )
    for split, pairs in splits.items():
        kinds = sorted({p.kind for p in pairs})
        mix = ", ".join(f"{kind} {sum(p.kind == kind for p in pairs)}" for kind in kinds)
        print(f"{split}: {len(pairs)} pairs ({mix})")
    threshold, accuracy = overlap_baseline(splits["train"], splits["test"])
    print(f"character Jaccard >= {threshold:.3f} (chosen on train): {accuracy:.3f} on test")


if __name__ == "__main__":
    main()
