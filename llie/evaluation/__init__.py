"""Evaluation: a function that predicts and a data set go in, a report of every metric under every protocol comes out.

`evaluate` measures, `report` holds and writes the figures, `validation` does both during training. `llie/train.py` and
`llie/test.py` call it.
"""

from llie.evaluation.evaluate import evaluate
from llie.evaluation.report import Report
from llie.evaluation.validation import Validation

__all__ = ["Report", "Validation", "evaluate"]
