"""One forward pass over calibration text streams every activation and weight statistic."""
