"""For celery's prefork workers, to share their memory:

    celery -A app worker -I hakmem_py.celery

freezes what is loaded before the first worker is forked: immortal where Python
can do that (hakmem_py.freeze).
"""
import sys

from celery.signals import worker_init

from hakmem_py import _freeze


# Kept by this name: celery refers to it weakly. Its logs are not set up yet.
@worker_init.connect
def freeze_all(**_):
    _freeze.freeze_server(lambda text: print(text, file=sys.stderr))
