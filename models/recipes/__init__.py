"""What a bare network file cannot say, one TOML per model or clinical pipeline."""
