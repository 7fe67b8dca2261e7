"""Real official files: every row reads, renders and encodes, and gold fed back scores best.

The files are not part of the repository; without them these tests are skipped.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from conftest import REAL_DATA, encoder_of

from cpm_tune.backbone.ant.config import PRESETS
from cpm_tune.backbone.ant.tokenizer import Tokenizer
from cpm_tune.data.files import checked_rows
from cpm_tune.data.splits import SplitFile
from cpm_tune.metrics import get_metric
from cpm_tune.schema.spec import Encoding
from cpm_tune.task import Generate
from cpm_tune.task.answers import gold, parsed
from cpm_tune.task.registry import load_task

pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not here")

# File, split, rows, and the ranking metric's value for gold where data or metric keep it from the
# maximum: an equation with a unit in it, one whose answer in the file is wrong.
FILES = {
    "lcqmc/dev.jsonl": ("lcqmc", "dev", 8802, 1.0),
    "lcqmc/dev.tsv": ("lcqmc", "dev", 8802, 1.0),
    "c3/c3-d-dev.json c3/c3-m-dev.json": ("c3", "dev", 3816, 1.0),
    "ccpm/valid.jsonl": ("ccpm", "dev", 2720, 1.0),
    "ccpm/test_public.head.jsonl": ("ccpm", "test", 200, None),
    "chid/fewclue_train_few_all.json": ("chid", "train", 202, 1.0),
    "chid/fewclue_dev_few_all.json": ("chid", "dev", 202, 1.0),
    "math23k/valid.jsonl": ("math23k", "dev", 1000, 0.998),
    "lcsts/valid.jsonl": ("lcsts", "dev", 1000, 1.0),
    "kdconv/music/dev.json kdconv/travel/dev.json": ("kdconv", "dev", 5163, 100.0),
    "adgen/dev.cuge.jsonl": ("adgen", "dev", 1070, 100.0),
    "adgen/advertisegen_dev.head.json": ("adgen", "dev", 300, 100.0),
    "finre/valid.cuge.jsonl": ("finre", "dev", 1489, 1.0),
    "finre/valid.txt": ("finre", "dev", 1489, 1.0),
    "wordseg_weibo/nlpcc2016-wordseg-dev.dat": ("wordseg_weibo", "dev", 2088, 1.0),
    "pku_seg/pku_test_gold.head.utf8": ("pku_seg", "test", 791, 1.0),
    "wmt20_enzh/newstest2019_enzh.jsonl": ("wmt20_enzh", "dev", 1997, 100.0),
    "cmeee/select_dev.json": ("cmeee", "dev", 500, 1.0),
    "kbqa/nlpcc2016.kbqa.head": ("kbqa", "test", 1748, 1.0),
}


@pytest.mark.parametrize("place", FILES)
def test_every_row_reads_and_gold_scores_best(place: str) -> None:
    name, split, n, best = FILES[place]
    task = load_task(name)
    file = SplitFile(split, tuple(REAL_DATA / part for part in place.split()), "")
    rows = list(checked_rows(task, file))
    assert len(rows) == n
    if best is None:
        assert all(row["target"] is None for row in rows)
        return
    golds = [gold(task, row) for row in rows]
    predictions = golds
    if isinstance(task.answer, Generate):
        predictions = [parsed(task, row["target"], row) for row in rows]
    metric = get_metric(task.metrics[0])
    assert metric.score(predictions, golds).value == pytest.approx(best)


@pytest.mark.parametrize("place", FILES)
def test_rows_render_and_encode_within_the_recipes_length(place: str) -> None:
    name, split, *_ = FILES[place]
    task = load_task(name)
    file = SplitFile(split, tuple(REAL_DATA / part for part in place.split()), "")
    tokenizer = Tokenizer.from_file(REAL_DATA / "vocab" / "ant.txt")
    length = {"max_length": task.recipe.get("max_length", 256)}
    room = getattr(task.answer, "max_new_tokens", 0)
    for template in task.templates:
        if not all(template.specials.values()):  # CPM-Ant's vocabulary has no <mask>
            continue
        config = PRESETS["cpm-ant-10b"]
        encoder = encoder_of(task, template, Encoding(**length), config, tokenizer, room)
        for row in islice(checked_rows(task, file), 60):
            for sequence in encoder.layout.describe(encoder.encode(row)):
                assert config.prompt_length < sequence.length <= length["max_length"]
            rendered = "".join(template.render(row, ""))
            assert all(
                value in rendered for name in template.fields if isinstance(value := row[name], str)
            )


def test_no_real_file_is_part_of_the_repository() -> None:
    own = Path(__file__).resolve().parent.parent
    sizes = {path.stat().st_size for path in REAL_DATA.rglob("*") if path.suffix != ".md"}
    shipped = [path for path in (own / "tasks").rglob("*") if path.is_file()]
    assert not [path for path in shipped if path.stat().st_size in sizes and path.stat().st_size]
