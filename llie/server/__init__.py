"""The server of `llie serve`: a photograph is posted, the enhanced one is the answer.

From the outside in: `run` listens and stops, `edge` guards the connection, `app` and `routes` speak HTTP; `body`,
`media` and `access` read a request, `service` carries it out; `jobs` and `worker` share the devices, `models` holds the
networks. It needs the extra [server]. Only `llie/commands/serve.py` calls it.
"""
