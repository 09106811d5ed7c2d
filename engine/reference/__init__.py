"""A case through a reference in the user's own environment, beside ours: agreement, time and memory.

The reference runs in a child process, so that its packages need not be installed beside voxelrt (``--python`` names
another interpreter) and its memory can be measured. ``*_child.py`` are run as files and import nothing of voxelrt, but
for ``voxelrt_child.py``.
"""
