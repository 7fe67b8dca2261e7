"""The layers that OpenDelta lacks for CPM-Ant: bias, prefix, soft prompt. Plain torch.

Each has OpenDelta's `pre_forward` and `post_forward`, or a method that the backbone calls. Trained
values are fp32; they are cast to the dtype of what they meet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from cpm_tune.delta.config import SoftPromptConfig
from cpm_tune.errors import UserError


class BiasLayer(nn.Module):
    """Adds a vector to a module's output."""

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width, device=device))

    def post_forward(self, output: Tensor) -> Tensor:
        return output + self.bias.to(output.dtype)


class BiasPadding:
    """Pads attention biases with zeros for the prefix: each once for all layers."""

    def __init__(self) -> None:
        self._padded = WeakTensorKeyDictionary()

    def __call__(self, bias: Tensor, n: int) -> Tensor:
        if bias not in self._padded:
            self._padded[bias] = F.pad(bias, (n, 0))
        padded: Tensor = self._padded[bias]
        return padded


class PrefixLayer(nn.Module):
    """Keys and values (prefix_token_num, heads * dim_head) before those of one attention module.

    Every query sees them, whatever its span, with no position bias.
    """

    def __init__(self, n: int, width: int, device: torch.device, pad: BiasPadding) -> None:
        super().__init__()
        self.past_key = nn.Parameter(torch.randn(n, width, device=device))
        self.past_value = nn.Parameter(torch.randn(n, width, device=device))
        self._pad = pad

    def prefix(self) -> tuple[Tensor, Tensor]:
        return self.past_key, self.past_value

    def extend(self, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`Attention.extend`: key, value (batch, heads, length, dim_head), bias (..., length)."""
        batch, heads, _, dim_head = key.shape
        past_key = self.prefix()[0]
        if bias.dtype == torch.bool or past_key.shape[1] != heads * dim_head:
            raise UserError(
                f"a prefix of width {past_key.shape[1]} meets keys of {heads} x {dim_head} and a "
                f"bias of {bias.dtype}, expected keys of that width and a bias to add: a mistake "
                "of this family of models."
            )
        prefix = [
            part.to(key.dtype).view(-1, heads, dim_head).transpose(0, 1).expand(batch, -1, -1, -1)
            for part in self.prefix()
        ]
        key, value = torch.cat([prefix[0], key], 2), torch.cat([prefix[1], value], 2)
        return key, value, self._pad(bias, prefix[0].shape[2])


class Reparameterization(nn.Module):
    """Embeddings and the hidden layer from which all prefixes are made (Li and Liang, 2021)."""

    def __init__(self, n: int, embed_dim: int, mid_dim: int, device: torch.device) -> None:
        super().__init__()
        self.wte = nn.Embedding(n, embed_dim, device=device)
        self.control_trans = nn.Linear(embed_dim, mid_dim, device=device)

    def forward(self) -> Tensor:
        """-> (prefix_token_num, mid_dim)."""
        return torch.tanh(self.control_trans(self.wte.weight))


class ReparameterizedPrefixLayer(PrefixLayer):
    """A prefix that is a linear function of the shared `Reparameterization`."""

    def __init__(
        self, shared: Reparameterization, width: int, device: torch.device, pad: BiasPadding
    ) -> None:
        nn.Module.__init__(self)
        self.output = nn.Linear(shared.control_trans.out_features, 2 * width, device=device)
        self._pad = pad
        self.__dict__["shared"] = shared  # the backbone owns its parameters, once

    def prefix(self) -> tuple[Tensor, Tensor]:
        key, value = self.output(self.__dict__["shared"]()).chunk(2, dim=-1)
        return key, value


class SoftPromptLayer(nn.Module):
    """Makes an embedding longer: rows from `first` on are trained.

    `soft_embeds` (soft_token_num, width) are `unscaled` times what is looked up: in CPM-Ant, whose
    embeddings are divided by the root of the width, entries are about 1 and a learning rate means
    the same at every width.
    """

    def __init__(
        self,
        config: SoftPromptConfig,
        first: int,
        width: int,
        unscaled: float,
        device: torch.device,
    ) -> None:
        super().__init__()
        table = torch.empty(config.soft_token_num, width, device=device)
        self.soft_embeds = nn.Parameter(table.uniform_(-config.init_range, config.init_range))
        self.first, self.scale = first, 1 / unscaled
        self._found = False

    def hidden_pairs(self, ids: Tensor, first_free: int, prompt_sees_text: bool) -> Tensor:
        """`Backbone.hidden_pairs`: soft tokens do not see the others, or the others not them."""
        soft = ids >= first_free
        query, key = soft[:, :, None], soft[:, None, :]
        return query & ~key if not prompt_sees_text else ~query & key

    def pre_forward(self, index: Tensor) -> tuple[tuple[Tensor], dict[str, Tensor]]:
        self._index = index
        return (index.clamp(max=self.first - 1),), {}

    def post_forward(self, output: Tensor) -> Tensor:
        """output (batch, length, dim_model). Raises UserError if nothing could be trained."""
        row = self._index - self.first
        is_soft = row >= 0
        # A device is asked once: it has to finish all that was begun before it can answer.
        asked = self.training and not is_soft.is_meta and not self._found
        if asked and not bool(is_soft.any()):
            raise UserError(
                "the soft prompt is in no sequence of this batch, so it cannot be trained: the "
                "encoder has to place its tokens in the template's slots."
            )
        self._found |= asked and is_soft.device.type != "cpu"
        soft = F.embedding(row.clamp(min=0), self.soft_embeds) * self.scale
        return torch.where(is_soft[..., None], soft.to(output.dtype), output)
