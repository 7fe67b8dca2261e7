"""A plan's inputs: everything a user may have got wrong, read and checked before any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cpm_tune.backbone.base import Backbone
from cpm_tune.backbone.tokens import Tokenizer
from cpm_tune.data.drawn import drawn
from cpm_tune.data.encode import Encoder
from cpm_tune.data.shots import Shots
from cpm_tune.data.store import Split, read_split
from cpm_tune.delta.config import SoftPromptConfig
from cpm_tune.delta.soft import SoftSlots
from cpm_tune.engine.device import DTYPES
from cpm_tune.engine.engine import Engine, make_engine
from cpm_tune.errors import UserError
from cpm_tune.metrics import get_metric
from cpm_tune.planning.plan import Plan
from cpm_tune.planning.skeleton import Skeleton, make_skeleton
from cpm_tune.task import Generate, Options
from cpm_tune.task.answers import gold, parsed

_UNSCORED = "no answers, so test will be predicted and not scored; answers are read from "
_LOOKED_AT = 50  # rows of dev


@dataclass(frozen=True)
class Inputs:
    """What a plan needs besides weights: all of it is checked."""

    skeleton: Skeleton
    encoder: Encoder
    splits: dict[str, Split]
    engine: Engine

    def of(self, plan: Plan) -> Inputs:
        """These inputs for the plan they were read for, or for a control of it: the same data and
        engine, with the skeleton and the encoder of its own delta."""
        if plan.delta == self.skeleton.delta:
            return self
        tokenizer = self.encoder.tokenizer
        skeleton = make_skeleton(plan.folder.config, plan.delta, tokenizer)
        encoder = make_encoder(plan, tokenizer)
        add_shots(plan, encoder, self.splits)
        return replace(self, skeleton=skeleton, encoder=encoder)


def read_inputs(plan: Plan, known: Mapping[str, Split] | None = None) -> Inputs:
    """Read every row of every split and check template, settings, device and delta; no weights.

    `known` are the plan's splits, if they have been read already.
    """
    spec, tokenizer = plan.spec, plan.folder.tokenizer()
    skeleton = make_skeleton(plan.folder.config, plan.delta, tokenizer)
    engine = make_engine(plan.execution, spec.precision)
    encoder = make_encoder(plan, tokenizer)

    def read() -> dict[str, Split]:
        return {
            name: read_split(plan.task, file, spec.data.limit, spec.data.skip_bad_rows)
            for name, file in plan.splits.items()
        }

    splits = dict(known or {}) or (read() if engine.main else {})
    engine.broadcast(None)  # the others read what the main process has stored
    splits = splits or read()
    used_splits(plan, splits)
    dev = splits["dev"]
    if not dev.labelled:  # selection needs scores; read_split lets only a test split go without
        raise UserError(f"{dev.file.path}: the dev split has no answers.")
    _check_parser(plan, dev)
    add_shots(plan, encoder, splits)
    return Inputs(skeleton, encoder, splits, engine)


def _check_parser(plan: Plan, dev: Split) -> None:
    """Raise UserError unless the parser reads a gold text as gold in the first rows of dev."""
    task = plan.task
    kind = get_metric(task.metrics[0]).kind
    if not isinstance(task.answer, Generate) or kind.from_gold is None:
        return
    for row in (rows := dev.rows.first(_LOOKED_AT)):
        if parsed(task, row["target"], row) in kind.from_gold(gold(task, row)):
            return
    first = rows.at([0])[0]
    raise UserError(
        f"task {task.name}: parse() reads none of the gold texts of dev as expected; the first, "
        f"{first['target'][:40]!r}, as {parsed(task, first['target'], first)!r}, expected "
        f"{gold(task, first)!r}."
    )


def load_backbone(plan: Plan, engine: Engine) -> Backbone:
    """A plan's backbone in its precision: its weights, or random ones for the control. With some
    engines every process has only a part of it."""
    spec = plan.spec
    return plan.folder.open(
        DTYPES[spec.precision],
        random_seed=spec.random_seed,
        quantize=spec.backbone.quantize,
        limit=plan.execution.memory_bytes,
        device=engine.device,
        materialise=engine.materialise,
    )


def make_encoder(plan: Plan, tokenizer: Tokenizer) -> Encoder:
    """The encoder of a plan: template, limits and the soft prompt of its delta, if it has one."""
    spec, soft = plan.spec, None
    layout = plan.folder.layout(spec.encoding, tokenizer)
    if isinstance(plan.delta, SoftPromptConfig):
        soft = SoftSlots(plan.delta, layout.first_free, _places_for_options(plan, plan.delta))
    return Encoder(
        plan.task,
        plan.template,
        layout,
        tokenizer,
        spec.encoding.max_length,
        answer_tokens=spec.decoding.max_new_tokens if spec.decoding else 0,
        soft=soft,
        scoring=spec.scoring,
        turns=None if plan.chat is None else plan.folder.turns(plan.chat, tokenizer),
    )


def add_shots(plan: Plan, encoder: Encoder, splits: Mapping[str, Split]) -> None:
    """Put the plan's shots, if it has any, before the encoder's prompts."""
    if k := plan.spec.shots:
        rows = used_splits(plan, splits)["train"].rows
        encoder.add_shots(Shots(plan.task, rows, k, plan.spec.shot_choice, plan.spec.seed))


def used_splits(plan: Plan, splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits with the rows of train that the run uses; raise UserError if it has too few."""
    recipe = plan.spec.recipe
    if recipe is None or recipe.rows is None:
        return dict(splits)
    train = drawn(plan.task, splits["train"], recipe.rows, plan.spec.seed)
    return {**splits, "train": train}


def _places_for_options(plan: Plan, delta: SoftPromptConfig) -> int:
    """How many options one sequence lists, each after soft tokens of its own.

    One for `{option}` templates. Raises UserError if options should follow soft tokens, but the
    template lists none.
    """
    answer, template = plan.task.answer, plan.template
    if template.scores_in_prompt or not delta.option_token_num:
        return int(template.scores_in_prompt)
    if isinstance(answer, Options) and answer.options in template.fields:
        return answer.most
    raise UserError(
        f"delta.option_token_num is {delta.option_token_num}, but template '{template.name}' of "
        f"task {plan.task.name} shows no options; set it to 0 or choose another template."
    )


def unofficial(plan: Plan, inputs: Inputs) -> list[str]:
    """One note per split whose size is not the official one."""
    if plan.spec.data.limit or plan.spec.data.sample:
        return []
    source = plan.task.source
    return [note for name, n in _whole(inputs) if (note := source.size_note(name, n))]


def odd_data(plan: Plan, inputs: Inputs) -> list[str]:
    """Warnings about the splits' files, and about sizes far from rounded published ones."""
    warnings = [split.file.warning for split in inputs.splits.values() if split.file.warning]
    warnings += [warning for split in inputs.splits.values() for warning in split.warnings]
    if not (plan.spec.data.limit or plan.spec.data.sample):
        source = plan.task.source
        warnings += [w for name, n in _whole(inputs) if (w := source.size_warning(name, n))]
    return warnings


def before_scoring(plan: Plan, inputs: Inputs) -> list[str]:
    """Warnings before anything runs: a test split without answers, and a rule that adds up
    log-probabilities of options that differ in length."""
    test, column = inputs.splits.get("test"), plan.task.answer.column
    return [
        *([] if test is None or test.labelled else [f"{test.file.path}: {_UNSCORED}'{column}'"]),
        *odd_scoring(plan, inputs),
    ]


def odd_scoring(plan: Plan, inputs: Inputs) -> list[str]:
    """A warning if the rule adds up log-probabilities of options that differ in length."""
    rows = inputs.splits["dev"].rows.first(_LOOKED_AT)
    if not any(map(inputs.encoder.uneven, rows)):
        return []
    return [
        f"options of template {plan.template.name} differ in number of tokens, and {plan.scoring} "
        "favours short ones; --scoring verbaliser-mean or verbaliser-relative does not"
    ]


def _whole(inputs: Inputs) -> list[tuple[str, int]]:
    """The sizes of the splits that have files of their own, whole."""
    splits = inputs.splits.items()
    return [(name, len(split)) for name, split in splits if not split.file.source]
