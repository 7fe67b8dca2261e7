"""TNEWS: the subject of a news title, of CLUE. (Xu et al., COLING 2020)"""

from cpm_tune.task import Choice, Files, Source, Task, Template

SUBJECTS = {
    100: "故事",
    101: "文化",
    102: "娱乐",
    103: "体育",
    104: "财经",
    106: "房产",
    107: "汽车",
    108: "教育",
    109: "科技",
    110: "军事",
    112: "旅游",
    113: "国际",
    114: "股票",
    115: "农业",
    116: "游戏",
}
WORDS = tuple(SUBJECTS.values())

TASK = Task(
    name="tnews",
    version=1,
    capability="language understanding",
    kind="news classification",
    suites=("cpm-1-zero-shot",),
    source=Source(
        title="TNEWS of CLUE: A Chinese Language Understanding Evaluation Benchmark",
        paper="https://arxiv.org/abs/2004.05986",
        licence="not stated",
        obtain="CLUE's tnews_public.zip; keep the files' names",
        sizes=(53_360, 10_000, 10_000),
    ),
    files=Files(
        columns=("sentence", "label"),
        names={
            "train": ("train",),
            "dev": ("dev", "valid", "eval", "val", "validation"),
            "test": ("test", "test_public", "test1.0.json", "test1.1.json"),
        },
        replaced=("test1.0.json",),
        aliases={"text": "sentence"},
    ),
    answer=Choice(labels=tuple(SUBJECTS)),
    templates=(
        Template("cpm-ant", "{sentence}的主题是{option}[是否正确]", WORDS),
        Template("words", "{sentence}主题：{answer}", WORDS),
        Template(
            "cpm-1-zero-shot",
            "{option}{sentence}",
            tuple(f"这是关于{word}的文章：" for word in WORDS),
            scoring="mean-nll",
            counts="after",
        ),
    ),
    metrics=("accuracy",),
    recipe={"lr": 5e-3, "batch_size": 16, "max_length": 128, "epochs": 10},
    sample_recipe={"lr": 2e-2, "batch_size": 16, "epochs": 5},
    protocol=(
        "A row is a title and one of 15 subjects, whose words here are this project's for CLUE's "
        "English names; keywords are not shown. Template cpm-1-zero-shot is CPM-1's form without "
        "training: the title follows a sentence that names the subject, and the lowest mean NLL "
        "of the title (with the end mark) decides. All subjects are scored. TNEWS is part of CLUE, "
        "not of CUGE."
    ),
)
