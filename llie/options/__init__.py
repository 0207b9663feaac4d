"""Options: an option file goes in, validated options with all defaults come out.

`files` reads YAML and its inheritance, `dialects` translates other toolkits' keys, `schema` lists all keys, `checks`
validates options by the schema and the registered classes, `load` combines these, `command_line` reads the arguments of
`llie/train.py` and `llie/test.py`. Called by these two and the commands; all other packages get plain dictionaries.
"""

from llie.options.load import dump_options, load_options

__all__ = ["dump_options", "load_options"]
