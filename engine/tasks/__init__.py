"""What networks answer that is no segmentation: one file a task.

A task takes a plan and a prepared study and gives an ``Answered``: numbers for JSON, lines for people, maps on the
study's own grid, and a picture. Reading, the way to the network's grid, writing and the command line are the
pipeline's and the same for all.
"""
