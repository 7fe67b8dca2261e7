"""LCQMC: do two questions ask the same thing? (Liu et al., COLING 2018)"""

from cpm_tune.task import STEMS, Choice, Files, NamedRecipe, Source, Task, Template

# finetune_cpm2_lcqmc.sh of TsinghuaAI/CPM-2-Finetune; the batch size is that of all processes.
CPM_2 = {
    "schedule": "constant",
    "warmup": 1,
    "patience": 0,
    "clip": 1.0,
    "batch_size": 128,
    "epochs": 10,
    "max_length": 512,
}

TASK = Task(
    name="lcqmc",
    version=1,
    capability="language understanding",
    kind="question matching",
    suites=("cpm-2",),
    source=Source(
        title="LCQMC: A Large-scale Chinese Question Matching Corpus",
        paper="https://aclanthology.org/C18-1166",
        licence="research use, on application",
        obtain="apply to HIT Shenzhen; put the train, dev and test files in one folder",
        sizes=(238_766, 8_802, 12_500),
        editions={"LCQMC": (238_766, 8_802, 12_500)},
        checksums=dict.fromkeys(
            (
                "b98df5ff7fcfe2d879444d12e202598c16c531c5a309e01b4b0806dde21de3f1",  # dev.tsv
                "6ce072d0e8cd91b5ad66815eda0021926e75847d0a410bef365a70dd73c44121",  # dev.jsonl
            ),
            "LCQMC",
        ),
    ),
    files=Files(
        columns=("sentence1", "sentence2", "label"),
        names={
            "train": ("train", "LCQMC_train"),
            "dev": (*STEMS["dev"], "LCQMC_dev"),
            "test": (*STEMS["test"], "LCQMC_test"),
        },
        aliases={
            **dict.fromkeys(("text_a", "question1", "query1", "q1", "text1", "s1"), "sentence1"),
            **dict.fromkeys(("text_b", "question2", "query2", "q2", "text2", "s2"), "sentence2"),
            **dict.fromkeys(("句子1", "问题1", "问句1", "句子一"), "sentence1"),
            **dict.fromkeys(("句子2", "问题2", "问句2", "句子二"), "sentence2"),
            "标签": "label",
        },
    ),
    answer=Choice(labels=(0, 1)),
    templates=(
        Template("cpm-ant", "{sentence1}和{sentence2}的意思{option}[是否正确]", ("不同", "相同")),
        Template(
            "cpm-2",
            "“{sentence1}”与“{sentence2}”的意思{<s_0>?}{answer}",
            ("矛盾", "相似"),
            version=3,
        ),
        Template("cpm-2-prompt", "{sentence1}{|}{sentence2}{answer}", ("矛盾", "相似")),
    ),
    earlier_templates=(
        Template(
            "cpm-2", "“{sentence1}”与“{sentence2}”的意思{answer}", ("矛盾", "相似"), version=2
        ),
        Template("cpm-2", "“{sentence1}”与“{sentence2}”的关系是：{answer}", ("矛盾", "相似")),
    ),
    metrics=("accuracy",),
    recipe={"lr": 5e-3, "batch_size": 32, "max_length": 256, "epochs": 10},
    sample_recipe={
        "lr": 3e-3,
        "batch_size": 64,
        "epochs": 8,
        "schedule": "linear",
        "warmup": 20,
    },
    recipes={
        "cpm-2": NamedRecipe(
            {**CPM_2, "lr": 2e-6},
            "cpm-2",
            "argmax-vocabulary",
        ),
        "cpm-2-prompt": NamedRecipe(
            {**CPM_2, "lr": 5e-3},
            "cpm-2-prompt",
            "argmax-vocabulary",
        ),
    },
    protocol=(
        "A row is two questions and whether they ask the same thing. By default, 是 is scored "
        "after the pair with 不同 and with 相同. Template cpm-2 has the words of CPM-2's code and "
        "scores 矛盾 and 相似 after them; CPM-2's own rule is argmax-vocabulary. LCQMC is not part "
        "of CUGE; its paper and CPM-2 measure accuracy."
    ),
    published={"CPM-2, full": 89.16, "CPM-2, prompt": 88.36, "mT5-XXL, full": 88.32},
    published_source="CPM-2: Large-scale Cost-effective Pre-trained Language Models (2021)",
    published_scoring={"CPM-2, full": "argmax-vocabulary", "CPM-2, prompt": "argmax-vocabulary"},
)
