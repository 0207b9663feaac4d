"""Engine: a model and a loader go in, a trained network, its checkpoints and logs come out.

The loop, launching, checkpoints, schedules, moving averages and logging; nothing here is specific to low light.
`llie/train.py` and `llie/test.py` call it; evaluation uses its processes, inference its allocator.
"""
