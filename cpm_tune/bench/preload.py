"""Imports once, in the server that workers are forked from, everything a trial needs.

What libraries print while they are imported is dropped: it would disturb the table of trials. An
import that fails is tried again, and reported, in the worker that needs it.

The server ends with the process that started it: by itself while it serves, but not while it
imports, nor at once, since an interpreter with so much in it takes seconds to shut down.
"""

import atexit
import contextlib
import os
import threading

_parent, _imported = os.getppid(), threading.Event()


def _end_with_parent() -> None:
    while not _imported.wait(0.1):
        if os.getppid() != _parent:
            os._exit(1)


_watch = threading.Thread(target=_end_with_parent)
_watch.start()
atexit.register(os._exit, 0)
_stderr, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import datasets  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import cpm_tune.bench.worker
    import cpm_tune.data.store
    import cpm_tune.engine.engine
    import cpm_tune.tuning.score
    import cpm_tune.tuning.train
    from cpm_tune.common.segmenter import make_segmenter
    from cpm_tune.delta.opendelta_import import opendelta
    from cpm_tune.errors import UserError

    make_segmenter().initialize()
    with contextlib.suppress(UserError):  # not installed: our own layers need no import
        opendelta()
        import cpm_tune.delta.models  # noqa: F401
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)
    _imported.set()
    _watch.join()  # a process that forks has one thread
