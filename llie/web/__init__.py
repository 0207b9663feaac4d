"""The page of `llie web`: a photograph is dropped onto it, the enhanced one is shown beside it and can be downloaded.

`serve` listens and cleans up, `page` lays out, `work` enhances, `models` lists and loads networks, `sessions` knows
which files belong to which open page. Only `page` imports gradio (the extra [web]). Only `llie/commands/web.py` calls
it.
"""
