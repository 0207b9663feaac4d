"""Pages: data, styles and scripts go in, one HTML file that needs nothing else comes out.

The benchmark and the reports of runs write their pages with it.
"""

from llie.pages.assemble import assemble, data_uri

__all__ = ["assemble", "data_uri"]
