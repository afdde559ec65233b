"""What theory predicts from a configuration alone: parameters, bytes, batches, arithmetic intensity; needs no torch."""
