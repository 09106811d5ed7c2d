"""One file per pass; each has run(model) -> model."""
