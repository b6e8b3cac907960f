"""One file per family of objectives; each reads like the paper's pseudocode."""
