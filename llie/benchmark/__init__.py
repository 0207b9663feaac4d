"""Benchmark: models and data sets go in; a table with figures, costs and published values comes out, and a page of it.

`plan` says what to measure, `cost` and `macs` measure a network alone, `runs` measures every model on every data set
and keeps each result, `published` knows others' figures, `tables` and `page` write what was measured, `check` compares
it with an earlier result. `llie benchmark` calls it.
"""

from llie.benchmark.plan import Plan, read_plan
from llie.benchmark.runs import measure

__all__ = ["Plan", "measure", "read_plan"]
