"""The commands of ``voxelrt``, one file each."""
