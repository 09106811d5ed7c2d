"""VoxelRT: an inference engine for medical volumes. Research software, not a medical device."""
