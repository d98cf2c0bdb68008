"""Training: the loop, its steps, the log, preemption."""
