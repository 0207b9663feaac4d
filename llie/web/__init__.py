"""The page of `llie web`: drop a photograph on it, compare it with the enhanced one, download the result.

`serve` listens and cleans up, `page` defines the layout, `work` enhances, `models` lists and loads networks, `sessions`
deletes the files of closed pages. Only `page` imports gradio (the extra [web]). Only `llie/commands/web.py` calls the
package.
"""
