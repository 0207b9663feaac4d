"""History: folders of training runs go in; a table over seeds, or a page of learning curves, comes out.

`runs` reads what a run wrote, `seeds` compares runs that differ in their seed, `page` draws. `llie/train.py` and
`llie report` call it.
"""

from llie.history.page import write_page
from llie.history.runs import Run, read_run
from llie.history.seeds import SeedTable

__all__ = ["Run", "SeedTable", "read_run", "write_page"]
