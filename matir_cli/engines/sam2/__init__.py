"""SAM 2 as region proposer."""
