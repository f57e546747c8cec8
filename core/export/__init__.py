"""Export: a normalized copy of a checkpoint, planned first, then written, verified and judged anew."""
