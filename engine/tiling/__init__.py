"""Windows over a volume and their stitching."""
