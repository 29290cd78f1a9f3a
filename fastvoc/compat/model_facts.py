"""What transformers' models say of themselves."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from torch import Tensor, nn

_Facts = TypeVar("_Facts", bound="ModelFacts")


class ModelFacts(nn.Module):
    """Counts and names of a model."""

    base_model_prefix: ClassVar[str] = ""
    supports_gradient_checkpointing: ClassVar[bool] = False
    is_activation_checkpointing: ClassVar[bool] = False
    is_gradient_checkpointing: ClassVar[bool] = False  # its older name

    @property
    def base_model(self: _Facts) -> _Facts:
        """The model without a head: this one."""
        return self

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Numbers in the parameters; weight norm is folded, so that its magnitudes do not count.

        Args:
            only_trainable: of those that require gradients.
            exclude_embeddings: without effect, there are none.
        """
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters, and of the buffers unless told otherwise."""
        buffers = self.buffers() if return_buffers else ()
        return sum(t.nelement() * t.element_size() for t in (*self.parameters(), *buffers))

    def get_parameter_or_buffer(self, target: str) -> Tensor:
        """The parameter or buffer of a name. Raises AttributeError when there is none."""
        try:
            return self.get_parameter(target)
        except AttributeError:
            return self.get_buffer(target)

    def can_generate(self) -> bool:
        """False: no tokens are drawn one by one."""
        return False
