"""Benchmark: measures models on data sets, and writes a table and a page with figures, costs and published values.

`plan` reads what to measure, `runs` measures every model on every data set and stores each result, `cost` and `macs`
measure a network by itself, `published` reads figures of papers, `tables` and `page` write the results, `pictures`
keeps small pictures for the page, and `check` compares results with earlier ones. `llie benchmark` calls the package.
"""

from llie.benchmark.plan import Plan, read_plan
from llie.benchmark.runs import measure

__all__ = ["Plan", "measure", "read_plan"]
