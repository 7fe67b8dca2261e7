"""The command `tune`, from a data folder to a record: what it leaves, repeats and survives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CLI, REPOSITORY, rows, small_config, vocabulary, write_jsonl

from cpm_tune.metrics import get_metric
from cpm_tune.planning.plan import Request, make_plan
from cpm_tune.runs.execute import execute
from cpm_tune.schema.record import RunRecord, read_record

FAST = ("--set", "train.max_steps=4", "--set", "train.eval_every=2", "--set", "train.lr=0.01")


def tune(cli: CLI, data: Path, backbone: Path, out: Path, *words: object) -> tuple[int, str, str]:
    return cli(
        *("--task", "lcqmc", "--delta", "lora", "--data", data, "--backbone", backbone),
        *("--out", out, *FAST, *words),
    )


def only_run(out: Path, delta: str = "lora") -> Path:
    (folder,) = out.glob(f"lcqmc.{delta}.*")
    return folder


def unfinished(out: Path) -> RunRecord:
    """The record in the one folder of a run that did not end well."""
    (partial,) = out.glob("*.partial")
    return RunRecord.model_validate_json((partial / "run.json").read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_a_whole_record_and_what_it_names(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    code, said, _ = tune(cli, data, small_backbone, tmp_path / "out")
    assert code == 0
    folder = only_run(tmp_path / "out")
    record = read_record(folder / "run.json")
    assert record.status == "finished"
    assert str(folder / "run.json") in said
    assert {p.name for p in folder.iterdir()} == {
        *("run.json", "log.jsonl", "tensorboard", "delta.json", "delta.safetensors"),
        *("predictions.dev.jsonl", "predictions.test.jsonl"),
    }
    assert not list((tmp_path / "out").glob("*.partial"))
    assert {name: part.n for name, part in record.data.items()} == {
        "train": 40,
        "dev": 16,
        "test": 16,
    }
    assert record.training is not None
    assert [point.step for point in record.training.curve] == [2, 4]
    log = lines(folder / "log.jsonl")
    assert [entry["step"] for entry in log] == [1, 2, 2, 3, 4, 4]
    assert record.environment is not None
    assert record.environment.packages["opendelta"] == "0.3.2"


def test_the_score_follows_from_the_predictions(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tune(cli, data, small_backbone, tmp_path / "out")
    folder = only_run(tmp_path / "out")
    record = read_record(folder / "run.json")
    for split, start in (("dev", 100), ("test", 200)):
        found = lines(folder / f"predictions.{split}.jsonl")
        assert [p["id"] for p in found] == [str(i) for i in range(start, start + 16)]
        assert [p["target"] for p in found] == [row["label"] for row in rows(16, start)]
        for p in found:
            scores = p["scores"]
            assert isinstance(scores, list)
            assert p["prediction"] == scores.index(max(scores))
        right = sum(p["prediction"] == p["target"] for p in found)
        score = record.scores[split]["accuracy"]
        assert score.value == right / 16
        assert score.low < score.value < score.high


def test_the_test_score_is_that_of_the_best_dev_step(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tune(cli, data, small_backbone, tmp_path / "out", "--set", "train.max_steps=6")
    record = read_record(only_run(tmp_path / "out") / "run.json")
    assert record.training is not None
    best = max(record.training.curve, key=lambda point: (point.dev, -point.step))
    assert record.training.best_step == best.step
    assert record.scores["dev"]["accuracy"].value == best.dev


@pytest.mark.parametrize("template", ["cpm-ant", "cpm-2"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path, template: str
) -> None:
    outs = [tmp_path / name for name in ("first", "again", "other")]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        words = ("--template", template, "--seed", seed, "--control", "none")
        assert tune(cli, data, small_backbone, out, *words)[0] == 0
    first, again, other = (only_run(out) for out in outs)
    for name in ("predictions.dev.jsonl", "predictions.test.jsonl", "delta.safetensors"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
        assert (first / name).read_bytes() != (other / name).read_bytes()
    losses = [[e.get("loss") for e in lines(run / "log.jsonl")] for run in (first, again)]
    assert losses[0] == losses[1]


def test_accumulation_over_small_micro_batches_changes_nothing_but_rounding(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / name for name in ("whole", "parts")]
    for out, tokens in zip(outs, (8192, 256), strict=True):
        words = ("--set", f"run.micro_tokens={tokens}", "--control", "none")
        assert tune(cli, data, small_backbone, out, *words)[0] == 0
    whole, parts = (only_run(out) for out in outs)
    assert whole.name == parts.name
    for a, b in zip(lines(whole / "log.jsonl"), lines(parts / "log.jsonl"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_a_finished_run_is_not_run_again_unless_asked(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tune(cli, data, small_backbone, tmp_path)
    record = only_run(tmp_path) / "run.json"
    before = record.stat().st_mtime_ns
    code, said, _ = tune(cli, data, small_backbone, tmp_path)
    assert code == 0
    assert "already exists; --overwrite reruns it" in said
    assert record.stat().st_mtime_ns == before
    assert tune(cli, data, small_backbone, tmp_path, "--overwrite")[0] == 0
    assert record.stat().st_mtime_ns != before


def test_controls_are_runs_of_their_own_and_stand_beside_the_score(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    words = ("--control", "zero-shot", "--control", "random-backbone")
    _, said, _ = tune(cli, data, small_backbone, tmp_path, *words)
    record = read_record(only_run(tmp_path) / "run.json")
    zero = read_record(only_run(tmp_path, "none") / "run.json")
    random = read_record(only_run(tmp_path, "lora-random") / "run.json")
    assert record.controls["zero-shot"].run_id == zero.run_id
    assert record.controls["zero-shot"].value == zero.test.value
    assert record.controls["majority"].value == 0.5
    assert zero.training is None
    assert zero.delta.n_trainable == 0
    assert not random.backbone.trained
    assert random.spec.backbone.init == "random"
    assert "random-backbone" in said


def test_training_beats_its_controls_on_rows_that_can_be_learnt(
    small_backbone: Path, tmp_path: Path
) -> None:
    """64 rows, scored on themselves: LoRA must reach 100%."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        write_jsonl(folder / f"{split}.jsonl", rows(64))
    settings = {
        **{"train.lr": 0.05, "train.warmup": 10, "train.epochs": 60, "train.eval_every": 20},
        **{"train.batch_size": 32, "delta.lora_r": 8},
    }
    plan = make_plan(Request("lcqmc", data=folder, backbone=str(small_backbone), settings=settings))
    record = execute(plan, tmp_path / "out").record
    assert record.test.value == 1.0
    assert record.controls["majority"].value == 0.5


def test_bf16_runs_and_is_another_run(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    for precision in ("fp32", "bf16"):
        words = ("--precision", precision, "--control", "none")
        assert tune(cli, data, small_backbone, tmp_path, *words)[0] == 0
    assert len(list(tmp_path.glob("lcqmc.lora.*/run.json"))) == 2


def test_a_config_file_says_what_options_say(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    settings = "{train: {max_steps: 4, eval_every: 2}, train.lr: 0.01}"
    config.write_text(
        f"task: lcqmc\ndelta: lora\ndata: {data}\nbackbone: {small_backbone}\nset: {settings}\n"
        f"out: {tmp_path / 'a'}\n",
        encoding="utf-8",
    )
    assert cli("--config", config)[0] == 0
    assert tune(cli, data, small_backbone, tmp_path / "b")[0] == 0
    assert only_run(tmp_path / "a").name == only_run(tmp_path / "b").name


def test_sample_data_is_known_wherever_it_lies(
    cli: CLI, small_backbone: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "mine"
    copied.mkdir()
    for path in (REPOSITORY / "tasks" / "sample" / "lcqmc").iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    assert tune(cli, copied, small_backbone, tmp_path / "out", "--limit", "8")[0] == 0
    record = read_record(only_run(tmp_path / "out") / "run.json")
    assert record.spec.data.sample
    assert not record.comparable
    assert "not comparable" in record.note


def test_splits_of_unofficial_size_are_noted(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tune(cli, data, small_backbone, tmp_path)
    record = read_record(only_run(tmp_path) / "run.json")
    assert "test has 16 rows, officially 12,500" in record.note
    assert not record.comparable


def test_a_backbone_that_gives_no_numbers_is_an_error_not_a_score(
    cli: CLI, data: Path, tmp_path: Path
) -> None:
    import torch

    from cpm_tune.backbone.ant.checkpoint import save_native
    from cpm_tune.backbone.opening import random_backbone

    model = random_backbone(small_config(), 1, torch.float32)
    with torch.no_grad():
        model.encoder.layers[0].ffn.ffn.w_out.weight.fill_(3e38)
    save_native(tmp_path / "big", model, "\n".join(vocabulary()) + "\n", trained=True)
    code, _, said = tune(cli, data, tmp_path / "big", tmp_path / "out")
    assert code == 2
    assert "the loss is nan" in said
    assert "weights are broken" in said
    assert not list((tmp_path / "out").glob("*/predictions*"))


def test_a_fault_in_train_is_found_before_the_zero_shot_control_runs(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    (data / "train.jsonl").write_text("nonsense\n", encoding="utf-8")
    code, _, said = tune(cli, data, small_backbone, tmp_path / "out", "--control", "zero-shot")
    assert code == 2
    assert "train.jsonl:1" in said
    assert not (tmp_path / "out").exists()


def test_one_class_for_every_example_is_said(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    words = ("--set", "train.lr=1e-9", "--control", "zero-shot")
    code, said, _ = tune(cli, data, small_backbone, tmp_path, *words)
    assert code == 0
    record = read_record(only_run(tmp_path) / "run.json")
    found = lines(only_run(tmp_path) / "predictions.test.jsonl")
    one = len({p["prediction"] for p in found}) == 1
    assert any("every prediction on test" in w for w in record.warnings) == one
    assert ("every prediction on test" in said) == one


def test_a_failed_run_is_recorded_and_named_and_a_later_one_takes_its_place(
    cli: CLI,
    data: Path,
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cpm_tune.tuning.train

    def fail(*_: object) -> None:
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(cpm_tune.tuning.train, "batch_loss", fail)
        with pytest.raises(RuntimeError):
            tune(cli, data, small_backbone, tmp_path)
    record = unfinished(tmp_path)
    assert (record.status, record.error) == ("failed", "no room")
    code, said, warned = cli("leaderboard", tmp_path)
    assert code == 0
    assert "lora" not in said
    assert "failed" in warned
    assert tune(cli, data, small_backbone, tmp_path)[0] == 0
    assert not list(tmp_path.glob("*.partial"))


def test_a_frozen_weight_that_moved_fails_the_run(
    cli: CLI,
    data: Path,
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cpm_tune.runs.training

    real = cpm_tune.runs.training.train

    def careless(training: Any, *rest: Any) -> Any:
        found = real(training, *rest)
        with torch.no_grad():
            training.model.input_embedding.weight[3, 0] += 1e-3
        return found

    monkeypatch.setattr(cpm_tune.runs.training, "train", careless)
    with pytest.raises(RuntimeError, match="frozen backbone parameters changed"):
        tune(cli, data, small_backbone, tmp_path)
    assert not list(tmp_path.glob("lcqmc.lora.*[!l]/run.json"))
    assert unfinished(tmp_path).status == "failed"


def test_overwriting_that_fails_keeps_the_finished_run(
    cli: CLI,
    data: Path,
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cpm_tune.tuning.train

    tune(cli, data, small_backbone, tmp_path)
    before = (only_run(tmp_path) / "run.json").read_bytes()
    monkeypatch.setattr(cpm_tune.tuning.train, "batch_loss", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune(cli, data, small_backbone, tmp_path, "--overwrite")
    finished = [p for p in tmp_path.glob("lcqmc.lora.*") if not p.name.endswith(".partial")]
    assert [(p / "run.json").read_bytes() for p in finished] == [before]


def test_a_kill_between_the_two_renames_of_overwriting_loses_nothing(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    tune(cli, data, small_backbone, tmp_path)
    folder = only_run(tmp_path)
    folder.rename(folder.with_name(folder.name + ".old"))
    code, said, _ = tune(cli, data, small_backbone, tmp_path)
    assert code == 0
    assert "already exists; --overwrite reruns it" in said
    assert only_run(tmp_path) == folder


def test_two_processes_do_not_share_a_run_folder(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    from filelock import FileLock

    plan = make_plan(
        Request(
            "lcqmc",
            data=data,
            backbone=str(small_backbone),
            settings={"train.max_steps": 4, "train.eval_every": 2, "train.lr": 0.01},
        )
    )
    (tmp_path / ".locks").mkdir()
    with FileLock(tmp_path / ".locks" / plan.spec.run_id):
        code, _, said = tune(cli, data, small_backbone, tmp_path, "--control", "none")
    assert code == 2
    assert "another process is working" in said


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_examples(
    cli: CLI, data: Path, small_backbone: Path, tmp_path: Path
) -> None:
    words = (
        "--set",
        "train.lr=1e30",
        "--set",
        "train.schedule=constant",
        "--set",
        "train.warmup=1",
    )
    code, _, said = tune(cli, data, small_backbone, tmp_path, *words)
    assert code == 2
    assert "lower train.lr" in said
    assert said.count("\n") == 1


def test_the_interval_is_wilsons() -> None:
    score = get_metric("accuracy").score([1] * 8 + [0] * 2, [1] * 10)
    z, n, p = 1.959963984540054, 10, 0.8
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert score.value == 0.8
    assert (score.low, score.high) == (pytest.approx(centre - half), pytest.approx(centre + half))
