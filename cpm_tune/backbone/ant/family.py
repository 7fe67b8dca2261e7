"""CPM-Ant as a family of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpm_tune.backbone.ant.config import PRESETS, ROLES, CPMAntConfig
from cpm_tune.backbone.ant.folder import CPMAntFolder, looks_like_ant, open_folder
from cpm_tune.backbone.ant.pretraining import PRETRAINING


class AntFamily:
    """CPM-Ant of every size, pruned or not."""

    name = "ant"
    title = "CPM-Ant"
    pretraining = PRETRAINING
    roles = ROLES

    @property
    def presets(self) -> Mapping[str, CPMAntConfig]:
        return PRESETS

    def recognises(self, folder: Path) -> bool:
        """Whether it has CPM-Ant's config and a vocabulary; other folders may be asked to open, for
        the sentence about what they lack."""
        return looks_like_ant(folder)

    def open(self, folder: Path) -> CPMAntFolder:
        return open_folder(folder)


ANT = AntFamily()
