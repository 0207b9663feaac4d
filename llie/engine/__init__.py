"""The loop, launching, checkpoints, schedules, moving averages and logging: nothing here knows about low light."""
