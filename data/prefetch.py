"""Making the next items in a background thread while the consumer works on the ones before."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def prefetched(items: Generator[T, None, None], depth: int, context: Context) -> Generator[T, None, None]:
    """The items of a generator, up to `depth` of them made in advance by a thread that runs in `context`.

    The thread starts with the first item asked for. It ends with the last item, with an error, which is raised here
    with the thread's traceback, or when this generator is closed, as a loop that is broken off does: closing waits for
    the item that is being made.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def produce() -> None:
        last: Any = _END
        try:
            for item in items:
                ready.put(item)
                if stop.is_set():
                    return
        except BaseException as error:
            last = _Failure(error)
        ready.put(last)

    thread = threading.Thread(target=context.run, args=(produce,), name="retrograd-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        # While the interpreter ends, daemon threads are frozen, maybe with the queue's lock in hand: waiting for the
        # thread, or for the lock, would never end.
        if not sys.is_finalizing():
            stop.set()
            # An emptied queue has room for the one item that the thread may still put before it sees `stop`.
            while not ready.empty():
                ready.get()
            thread.join()
            items.close()
