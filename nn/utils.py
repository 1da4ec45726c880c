"""The names that PyTorch users import from `nn.utils`; what they stand for lives in `optim`."""

from ..optim.clipping import clip_grad_norm_, clip_grad_value_, parameters_to_vector, vector_to_parameters

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "vector_to_parameters"]
