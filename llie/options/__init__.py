"""Options: an option file goes in, validated options with every default filled in come out.

`files` reads YAML and its inheritance, `dialects` knows others' files, `schema` lists the keys, `checks` compares
both and asks the registered classes for their arguments, `load` puts these together, `command_line` reads the arguments
of `llie/train.py` and `llie/test.py`. These and the commands call it; everything below is given plain dictionaries.
"""

from llie.options.load import dump_options, load_options

__all__ = ["dump_options", "load_options"]
