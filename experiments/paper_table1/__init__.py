"""Table 1 of the SNS paper again: published SNS and Sinkhorn, beside our methods."""
