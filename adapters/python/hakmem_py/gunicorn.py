"""A gunicorn configuration for workers that share their memory:

    gunicorn -c python:hakmem_py.gunicorn app:app

or, in a configuration of your own, from hakmem_py.gunicorn import *

The application is loaded before the workers are forked (preload_app), and then
frozen: immortal where Python can do that (hakmem_py.freeze).
"""
from hakmem_py import _freeze

__all__ = ["on_reload", "preload_app", "when_ready"]

preload_app = True


def when_ready(server):
    """Before the first worker is forked: see gunicorn's when_ready."""
    _freeze.freeze_server(server.log.info)


def on_reload(server):
    """The same after a reload (SIGHUP), before its workers."""
    _freeze.freeze_server(server.log.info)
