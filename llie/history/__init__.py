"""History: reads folders of training runs, and writes a table over seeds or a page of learning curves.

`runs` reads what a run has logged, `seeds` compares runs that differ only in their seed, and `page` writes the page.
`llie/train.py` and `llie report` call the package.
"""

from llie.history.page import write_page
from llie.history.runs import Run, read_run
from llie.history.seeds import SeedTable

__all__ = ["Run", "SeedTable", "read_run", "write_page"]
