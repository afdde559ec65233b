"""A model under a scheme as a checkpoint that others load: safetensors in the compressed-tensors format."""
