"""Reading ahead and writing behind, so that decoding, the network and encoding go on at once."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

_END = object()
_T = TypeVar("_T")


def read_ahead(iterable: Iterable[_T], depth: int) -> Generator[_T, None, None]:
    """Iterates in a thread of its own, at most `depth` items waiting.

    What the iterable raises is raised here, in its place. Closing the generator ends the thread.
    """
    items: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return items.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill():
        try:
            for item in iterable:
                put((item, None))
                if stop.is_set():
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=fill, name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


class WriteBehind(Generic[_T]):
    """Calls a function with one item after another in a thread of its own.

    Args:
      function: called with each item.
      depth: items that may wait; `put` blocks when there are more.
    """

    def __init__(self, function: Callable[[_T], object], depth: int) -> None:
        self._function = function
        self._items: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._drain, name="write_behind", daemon=True)
        self._thread.start()

    def put(self, item: _T) -> None:
        """Hands an item over; raises what an earlier one raised."""
        self._items.put(item)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Waits until all are done; raises what one of them raised."""
        self._items.put(_END)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _drain(self):
        while (item := self._items.get()) is not _END:
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:
                    self._error = error
