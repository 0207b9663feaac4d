"""`python -m llie` is the `llie` command."""

import sys

from llie.cli import main

sys.exit(main())
