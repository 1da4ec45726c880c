"""Above the layers: what a training run needs."""
