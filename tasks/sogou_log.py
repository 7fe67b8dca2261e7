"""Sogou-Log: rank page titles for a query, learnt from clicks (Xiong et al., SIGIR 2017)"""

from collections.abc import Iterator, Sequence
from typing import Any

from cpm_tune.task import Files, NamedRecipe, Rank, Row, Source, Submission, Task, Template
from cpm_tune.task.answers import is_withheld


def rows(record: Any) -> Iterator[Row]:
    """A pair of training documents, or the documents of a test query."""
    if "doc" not in record:
        documents = [record["pos_doc"], record["neg_doc"]]
        yield {"query": record["query"], "documents": documents, "grades": [1, 0]}
        return
    grades = [document.get("relevance") for document in record["doc"]]
    graded = [not is_withheld(grade) for grade in grades]
    if any(graded) and not all(graded):
        raise ValueError(f"document {graded.index(False) + 1} has no relevance, others have one")
    yield {
        "id": record.get("query_id"),
        "query": record["query"],
        "documents": [document["title"] for document in record["doc"]],
        "grades": grades if any(graded) else None,
    }


def fill(record: Any, predictions: Sequence[Any]) -> Any:
    """The official record with its documents in order, the best first."""
    scores = predictions[0]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return {**record, "doc": [record["doc"][i] for i in order]}


def read_order(record: Any, official: Any, rows: Sequence[Row]) -> list[list[float]]:
    """Scores of the documents from their order in the submission."""
    if record["query_id"] != official["query_id"]:
        raise ValueError(f"query_id is {record['query_id']}, expected {official['query_id']}")
    names = [document.get("sogou_id", document["title"]) for document in official["doc"]]
    order = [document.get("sogou_id", document["title"]) for document in record["doc"]]
    if sorted(order) != sorted(names):
        raise ValueError("the documents differ from those of the official query")
    places = {name: [at for at, other in enumerate(order) if other == name] for name in names}
    return [[float(len(names) - places[name].pop(0)) for name in names]]


# finetune_cpm2_sogou-log.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "batch_size": 256,
    "epochs": 10,
    "rows_share": 0.5,
    "max_length": 150,
}

TASK = Task(
    name="sogou_log",
    version=1,
    capability="information acquisition and question answering",
    kind="document retrieval",
    suites=("cuge", "cuge-lite", "cpm-2"),
    source=Source(
        title="End-to-End Neural Ad-hoc Ranking with Kernel Pooling (its Sogou log)",
        paper="https://arxiv.org/abs/1706.06613",
        licence="not stated",
        obtain="CUGE's Sogou-Log.zip; keep the files' names",
        sizes=(8_052_000, 500_000, 1_000),
    ),
    files=Files(
        columns=("query", "documents", "grades"),
        texts=("documents",),
        structures=("grades",),
        rows=rows,
    ),
    answer=Rank(options="documents", column="grades"),
    templates=(
        Template("cpm-ant", "{query}的搜索结果：{option}[是否正确]"),
        Template("cpm-2", "查询：{query}{|}标题：{option}", version=2, yes="相关"),
    ),
    earlier_templates=(Template("cpm-2", "查询：{query} 标题：{option}[是否正确]"),),
    metrics=("ndcg_10", "ndcg_5", "ndcg_3", "ndcg_1", "mrr"),
    recipe={"lr": 3e-3, "batch_size": 64, "max_length": 256, "epochs": 20, "dev_rows": 10_000},
    sample_recipe={"lr": 2e-2, "batch_size": 16, "epochs": 10},
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 5e-6},
            "cpm-2",
        ),
    },
    published={
        "CPM-2, full": 35.9,
        "mT5-XXL, full": 35.9,
        "mT5-large, full": 31.65,
        "mT5-small, full": 29.2,
    },
    published_source="CUGE lite leaderboard: nDCG, its cut-off k is not stated",
    published_scoring={"CPM-2, full": "yes-logit"},
    protocol=(
        "Train and dev are pairs of a clicked and another title, with grades 1 and 0. A test "
        "query has several titles, graded by their field relevance if the file has it (the "
        "official test file does not). Titles are ranked by the logit of 是, trained by "
        "cross-entropy within the pair; template cpm-2 is CPM-2's, with the logit of 相关. "
        "CUGE ranks by nDCG@k without stating k. nDCG at 1, 3, 5 and 10 are reported; 10 ranks, "
        "because it covers most of a result page, and published results are shown with that "
        "caveat. Over a pair nDCG@10 is 1 or 0.63, so dev and test are on different scales."
    ),
    submission=Submission("Sogou-Log.jsonl", fill, read=read_order),
)
