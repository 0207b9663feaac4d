"""Evaluation: a prediction function and a data set go in, a report of all metrics under all protocols comes out.

`evaluate` measures, `report` stores and writes the figures, `validation` does both during training. Called by
`llie/train.py` and `llie/test.py`.
"""

from llie.evaluation.evaluate import evaluate
from llie.evaluation.report import Report
from llie.evaluation.validation import Validation

__all__ = ["Report", "Validation", "evaluate"]
