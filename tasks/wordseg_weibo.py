"""WordSeg-Weibo: put spaces between the words of microblog posts (Qiu et al., NLPCC 2016)"""

from cpm_tune.task import Files, Source, Submission, Task
from cpm_tune.task.registry import load_task

PKU_SEG = load_task("pku_seg")  # the same task and files, with other text
assert PKU_SEG.submission is not None

TASK = Task(
    name="wordseg_weibo",
    version=1,
    capability="word-sentence",
    kind="word segmentation",
    suites=("cuge",),
    source=Source(
        title="Overview of the NLPCC-ICCPOL 2016 Shared Task: Chinese Word Segmentation for "
        "Micro-blog Texts",
        paper="https://doi.org/10.1007/978-3-319-50496-4_84",
        licence="research use",
        obtain="the data folder of the shared task NLPCC-2016 WordSeg-Weibo, or CUGE's files",
        sizes=(20_135, 2_052, 8_592),  # lines; a row is a sentence
        editions={"NLPCC 2016": (None, 2_088, None)},
        checksums={
            "8902ab2fb3009ef1ae1b8de2f5325e68878a7cdc77514e59be9e52d0cb291999": "NLPCC 2016"  # dev
        },
    ),
    files=Files(
        columns=PKU_SEG.files.columns,
        texts=PKU_SEG.files.texts,
        names={
            split: tuple(
                f"{name}.{end}"
                for stem in stems
                for name in (stem, f"nlpcc2016-wordseg-{stem}", f"nlpcc2016-word-seg-{stem}")
                for end in ("dat", "txt", "utf8")
            )
            for split, stems in {
                "train": ("train",),
                "dev": ("dev", "valid", "eval"),
                "test": ("test", "test_public"),
            }.items()
        },
        read=PKU_SEG.files.read,
        rows=PKU_SEG.files.rows,
    ),
    answer=PKU_SEG.answer,
    templates=PKU_SEG.templates,
    metrics=PKU_SEG.metrics,
    recipe=PKU_SEG.recipe,
    sample_recipe=PKU_SEG.sample_recipe,
    protocol=(
        "This task is read, prompted, parsed and scored like pku_seg: sentence by sentence, with "
        "words generated with single spaces between them, and aligned with the source if "
        "characters differ. The shared task also reports a weighted F1 (rare boundaries count "
        "more). CUGE asks for the plain word F1, which is computed here. Ideographic spaces in "
        "the official files separate words like any other whitespace and are not part of the "
        "text."
    ),
    submission=Submission(
        "WordSegWeibo.txt", PKU_SEG.submission.fill, read=PKU_SEG.submission.read
    ),
)
