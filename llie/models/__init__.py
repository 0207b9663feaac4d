"""Models: a batch goes in, the loss of one training step or a prediction comes out; the engine repeats the step.

`llie/train.py` builds them by name, evaluation predicts with them.
"""
