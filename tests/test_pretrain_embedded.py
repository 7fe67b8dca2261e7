"""The embedded backbone: small, and loaded with little more than one look at each weight."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cpm_tune.backbone.ant.checkpoint import load_weights
from cpm_tune.backbone.ant.folder import open_folder
from cpm_tune.backbone.bundled import FOLDER

VIEWS = (".set_.", ".slice.", ".view.", ".detach.")


class Work(TorchDispatchMode):
    """Counts operations and the elements that they write, outside of the meta device; views write
    none."""

    def __init__(self):
        super().__init__()
        self.operations, self.elements = Counter(), 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        if any(t.device.type != "meta" for t in made):
            self.operations[str(function)] += 1
            if not any(view in str(function) for view in VIEWS):
                self.elements += sum(t.numel() for t in made)
        return result


def test_loading_is_a_few_passes_over_the_weights_and_draws_none_at_random():
    with Work() as work:
        model = load_weights(open_folder(FOLDER), torch.float32)
    n = sum(parameter.numel() for parameter in model.parameters())
    tensors = len(model.state_dict())
    assert n < 5_000_000
    assert n < work.elements < 16 * n
    assert work.operations.total() < 25 * tensors
    assert not [name for name in work.operations if "normal" in name or "uniform" in name]


def test_it_is_small_on_disk():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12_000_000
