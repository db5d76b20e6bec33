"""Reading ahead and writing behind: order, errors in their place, threads that end."""

import itertools
import threading
import time

import pytest

from msitf_jax.video.threads import WriteBehind, read_ahead

PATIENCE = 20  # seconds until a test gives up on another thread, on however busy a machine
MOMENT = 0.05  # in which a thread that should do nothing might


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def threads(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads("read_ahead") == threads("write_behind") == []


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_items_come_in_order(depth):
    assert list(read_ahead(iter(range(50)), depth)) == list(range(50))


def test_none_and_exceptions_are_items_like_others():
    items = [None, ValueError("one that is not raised"), ()]
    assert list(read_ahead(items, 2)) == items


def test_it_iterates_in_another_thread():
    names = read_ahead((threading.current_thread().name for _ in range(3)), 1)
    assert list(names) == ["read_ahead"] * 3


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_the_iterable_raises_is_raised_in_its_place(kind):
    def items():
        yield from range(3)
        raise kind("after three")

    ahead = read_ahead(items(), 5)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(kind, match="after three"):
        next(ahead)
    assert list(ahead) == []


@pytest.mark.parametrize("depth", [1, 4])
def test_it_reads_no_further_than_what_may_wait_and_one_in_hand(depth):
    read = []
    ahead = read_ahead((read.append(item) or item for item in itertools.count()), depth)
    for item in range(3):
        assert next(ahead) == item
        most = item + 1 + depth + 1
        wait_for(lambda most=most: len(read) >= most)
        time.sleep(MOMENT)
        assert len(read) == most
    ahead.close()


def test_nothing_is_read_before_the_first_item_is_asked_for():
    read = []
    ahead = read_ahead((read.append(i) for i in range(3)), 1)
    time.sleep(MOMENT)
    assert not read
    assert not threads("read_ahead")
    ahead.close()


@pytest.mark.parametrize("taken", [1, 2])
def test_closing_early_ends_the_thread_and_lets_go_of_the_source(taken):
    closed = []

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    ahead = read_ahead(items(), 1)
    assert [next(ahead) for _ in range(taken)] == list(range(taken))
    assert threads("read_ahead")
    ahead.close()
    assert not threads("read_ahead")
    del ahead
    assert closed


def test_writing_is_done_in_order_in_another_thread():
    written = []
    behind = WriteBehind(lambda item: written.append((item, threading.current_thread().name)), 2)
    for item in range(50):
        behind.put(item)
    behind.close()
    assert written == [(item, "write_behind") for item in range(50)]


def test_put_waits_when_as_many_as_may_wait_do():
    go, put, written = threading.Event(), [], []
    behind = WriteBehind(lambda item: go.wait(PATIENCE) and written.append(item), 3)

    def put_all():
        for item in range(10):
            behind.put(item)
            put.append(item)

    writer = threading.Thread(target=put_all)
    writer.start()
    wait_for(lambda: len(put) == 4)  # one in hand and three that wait
    time.sleep(MOMENT)
    assert len(put) == 4
    assert not written
    go.set()
    writer.join()
    behind.close()
    assert written == list(range(10))


def test_what_writing_raises_is_raised_by_a_later_put_and_by_close():
    tried = []

    def write(item):
        tried.append(item)
        if item == 2:
            raise OSError("disk full")

    behind = WriteBehind(write, 100)
    for item in range(3):
        behind.put(item)
    wait_for(lambda: behind._error is not None)
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            behind.put(3)
    with pytest.raises(OSError, match="disk full"):
        behind.close()
    assert tried == [0, 1, 2]


def test_what_the_last_item_raises_is_raised_by_close():
    behind = WriteBehind(lambda item: 1 / item, 2)
    behind.put(0)
    with pytest.raises(ZeroDivisionError):
        behind.close()


def test_put_does_not_wait_for_ever_after_an_error():
    behind = WriteBehind(lambda item: 1 / item, 1)

    def put_many():
        for _ in range(1000):
            behind.put(0)

    with pytest.raises(ZeroDivisionError):
        put_many()
    with pytest.raises(ZeroDivisionError):
        behind.close()
