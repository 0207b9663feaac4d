"""Pages: puts data, styles and scripts together into one HTML file that loads nothing else.

`llie.benchmark` and `llie.history` write their pages with it.
"""

from llie.pages.assemble import assemble, data_uri

__all__ = ["assemble", "data_uri"]
