"""The trials of a search in one file, suggested and judged by Optuna (the extra `search`).

Optuna's journal has everything, so a search that was stopped anywhere goes on as if it had not
been: the suggestion of trial n follows from the space, the seed and the trials before it.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cpm_tune.common.reading import read_regular
from cpm_tune.errors import UserError
from cpm_tune.schema.record import TrialRecord
from cpm_tune.search.space import Choices, Dimension, Space, points, setting_text, size_of

if TYPE_CHECKING:
    import optuna

JOURNAL = "optuna.journal"
STARTUP = 5  # trials that are drawn at random, and finished trials before one is pruned
_NAME = "search"
_LARGE = 10_000  # points of a space
_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}


def check_optuna() -> None:
    """Raise UserError if Optuna is not installed."""
    if find_spec("optuna") is None:
        raise UserError("optuna is not installed; run: python -m pip install 'cpm-tune[search]'")


def sampler_seed(seed: int, n_before: int) -> int:
    """The seed of the sampler that suggests the trial after `n_before` others."""
    return (100_003 * seed + n_before) % 2**32


class Study:
    """The stored trials of one search. Only one process may have it."""

    def __init__(self, folder: Path, space: Space, seed: int, higher_is_better: bool) -> None:
        """Open the journal in the folder, or begin one. Raises UserError if it cannot be read."""
        import optuna
        from optuna.storages import journal

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._seed = space, seed
        path, alone = folder / JOURNAL, cast(Any, _Alone())
        _cut_half_written(path)
        try:
            with warnings.catch_warnings(action="ignore"):
                storage = optuna.storages.JournalStorage(
                    journal.JournalFileBackend(str(path), alone)
                )
                self._study = optuna.create_study(
                    storage=storage,
                    study_name=_NAME,
                    direction="maximize" if higher_is_better else "minimize",
                    pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
                    load_if_exists=True,
                )
                self.records()
        except OSError:
            raise
        except Exception as error:  # whatever a damaged file makes of Optuna
            raise UserError(
                f"{path}: not a journal of Optuna's that this search can read "
                f"({type(error).__name__}: {error!s:.100}); remove {folder} to begin it again."
            ) from error

    def records(self) -> list[TrialRecord]:
        """The trials that have ended, in order."""
        return [_record(trial) for trial in self._ended()]

    def _ended(self) -> list[optuna.trial.FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [t for t in trials if t.state.is_finished() and "abandoned" not in t.user_attrs]

    def next(self, first: Mapping[str, Any]) -> Trial:
        """The trial that was stopped, or a new one. The first one has the values `first`, if they
        are in the space. In place of a suggestion that was tried before, a small space gives a
        point that was not."""
        import optuna

        state = optuna.trial.TrialState
        for stopped in self._study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            trial = Trial(self._study, stopped._trial_id, self._space)
            if stopped.params.keys() == self._space.keys():
                return trial
            trial.abandon()  # killed while it was suggested
        ended = self._ended()
        waiting = self._study.get_trials(deepcopy=False, states=(state.WAITING,))
        inside = all(values.includes(first.get(key)) for key, values in self._space.items())
        if not (ended or waiting) and inside:
            self._enqueue(first)
        self._study.sampler = make_sampler(self._seed, len(ended))
        trial = self._ask()
        known = [_record(one) for one in ended]
        if trial.repeats(known) and (untried := self._untried(known)):
            trial.abandon()
            self._enqueue(random.Random(f"search {self._seed} {len(ended)}").choice(untried))
            trial = self._ask()
        return trial

    def _ask(self) -> Trial:
        with warnings.catch_warnings(action="ignore"):
            suggested = self._study.ask(distributions(self._space))
        return Trial(self._study, suggested._trial_id, self._space)

    def _enqueue(self, values: Mapping[str, Any]) -> None:
        self._study.enqueue_trial({k: _stored(v, values[k]) for k, v in self._space.items()})

    def _untried(self, records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
        """The points of a small space that no trial had; none of a large one."""
        if (size_of(self._space) or _LARGE) >= _LARGE:
            return []
        tried = [record.settings for record in records]
        return [
            point
            for point in points(self._space)
            if {key: setting_text(value) for key, value in point.items()} not in tried
        ]


class Trial:
    """A trial that has begun: its settings, and what is reported of it."""

    def __init__(self, study: optuna.Study, number: int, space: Space) -> None:
        import optuna

        self._study = study
        self._trial = optuna.trial.Trial(study, number)
        self._before = float(self._trial.user_attrs.get("seconds", 0.0))
        stored = self._trial.params
        self.values = {k: values.parse(stored[k]) for k, values in space.items() if k in stored}

    @property
    def settings(self) -> dict[str, str]:
        """Its settings as texts."""
        return {key: setting_text(value) for key, value in self.values.items()}

    def repeats(self, records: Sequence[TrialRecord]) -> int | None:
        """The number (from 1) of the first earlier trial with the same settings."""
        same = (n for n, record in enumerate(records, 1) if record.settings == self.settings)
        return next(same, None)

    def note(self, **about: Any) -> None:
        """Keep values with the trial: steps, error, repeats; seconds are added to earlier ones."""
        for key, value in about.items():
            total = round(self._before + value, 3) if key == "seconds" else value
            self._trial.set_user_attr(key, total)

    def report(self, number: int, dev: float) -> None:
        """Store the dev score of evaluation `number` (from 1), unless it is stored already."""
        if number not in self._frozen().intermediate_values:
            self._trial.report(dev, number)

    def is_worse_than_the_median(self) -> bool:
        """Whether its best dev score so far is worse than the median of the finished trials'
        scores at its last evaluation (at least STARTUP of them)."""
        return self._trial.should_prune()

    def finish(self, dev: float) -> None:
        """It ended with this dev score, its best one."""
        self._study.tell(self._number(), dev)

    def prune(self) -> None:
        """It was given up."""
        self._tell("PRUNED")

    def fail(self, error: str) -> None:
        """It could not be carried out."""
        self.note(error=error)
        self._tell("FAIL")

    def end_as(self, earlier: TrialRecord) -> None:
        """It ended as an earlier trial with the same settings did."""
        if earlier.state == "failed":
            self.fail(earlier.error)
        elif earlier.state == "pruned" or earlier.dev is None:
            self.prune()
        else:
            self.finish(earlier.dev)

    def abandon(self) -> None:
        """It never began, and does not count."""
        self.note(abandoned=True)
        self._tell("FAIL")

    def _tell(self, state: str) -> None:
        import optuna

        self._study.tell(self._number(), state=optuna.trial.TrialState[state])

    def _number(self) -> int:
        return self._trial.number

    def _frozen(self) -> optuna.trial.FrozenTrial:
        return self._study._storage.get_trial(self._trial._trial_id)


def make_sampler(seed: int, n_before: int) -> optuna.samplers.TPESampler:
    """The sampler of the trial after `n_before` others."""
    import optuna

    return optuna.samplers.TPESampler(
        seed=sampler_seed(seed, n_before),
        n_startup_trials=STARTUP,
        multivariate=False,
        constant_liar=False,
    )


def distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """The space as Optuna has it; values of a list are texts."""
    from optuna import distributions as of

    made: dict[str, of.BaseDistribution] = {}
    for key, values in space.items():
        if isinstance(values, Choices):
            made[key] = of.CategoricalDistribution(tuple(map(setting_text, values.values)))
        elif values.whole:
            made[key] = of.IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            made[key] = of.FloatDistribution(values.low, values.high, log=values.log)
    return made


def _stored(values: Dimension, value: Any) -> Any:
    return setting_text(value) if isinstance(values, Choices) else value


def _record(trial: optuna.trial.FrozenTrial) -> TrialRecord:
    about = trial.user_attrs
    return TrialRecord(
        state=_STATES[trial.state.name],
        settings=dict(about["settings"]),
        dev=about.get("dev"),
        steps=about.get("steps", 0),
        seconds=about.get("seconds", 0.0),
        repeats=about.get("repeats"),
        error=about.get("error", ""),
    )


class _Alone:
    """A lock for a journal that only this process has: the search has a lock of its own, which a
    killed process leaves open."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _cut_half_written(path: Path) -> None:
    """Remove a last line without an end, which a killed process left."""
    if path.exists():
        raw = read_regular(path)
        if raw and not raw.endswith(b"\n"):
            os.truncate(path, raw.rfind(b"\n") + 1)
