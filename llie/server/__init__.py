"""The server of `llie serve`: a client posts a photograph and gets the enhanced one back.

`run` listens on the address and stops the server. `app` builds the application, `edge` wraps it, and `routes` defines
its paths. `access`, `body` and `media` check a request, `limits` says what is refused, and `service` carries a request
out: it puts a job into the queue of `jobs`, which the threads of `worker` empty, one thread for each device. `models`
loads the networks, `metrics` counts. The package needs the extra [server]. Only `llie/commands/serve.py` calls it.
"""
