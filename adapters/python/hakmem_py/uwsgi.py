"""The application of a uWSGI server whose workers share their memory:

    uwsgi --master --module hakmem_py.uwsgi --set hakmem-app=app:application

loads it and freezes what is loaded before uWSGI forks: immortal where Python can
do that (hakmem_py.freeze). Not with lazy-apps, which loads it in each worker.
"""
import importlib

import uwsgi

from hakmem_py import _freeze


def _load():
    name = uwsgi.opt.get("hakmem-app", b"").decode()
    module, _, attribute = name.partition(":")
    if not module:
        raise RuntimeError("hakmem_py.uwsgi: which application? add"
                           " --set hakmem-app=MODULE:CALLABLE")
    found = importlib.import_module(module)
    for part in (attribute or "application").split("."):
        found = getattr(found, part)
    _freeze.freeze_server(print)
    return found


application = _load()
