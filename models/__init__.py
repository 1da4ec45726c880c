"""Published architectures, with the names of their published checkpoints."""
