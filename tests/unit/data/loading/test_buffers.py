"""Memory that goes round, and the thread that works ahead."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from qle.data.loading.buffers import Ahead, Buffers

SHAPES = {"a": ((4, 8), np.dtype("float16")), "b": ((2,), np.dtype("int64"))}


def test_memory_is_used_again_once_nobody_looks_into_it() -> None:
    buffers = Buffers(SHAPES)
    tensor = torch.from_numpy(buffers.take()["a"])
    view = tensor[1:].flatten().view(torch.bfloat16)
    del tensor
    buffers.take()
    assert len(buffers) == 2  # the view holds the first set; the second is free again at once
    del view
    for _ in range(5):
        buffers.take()
    assert len(buffers) == 2


def test_autograd_holds_on_to_what_it_needs() -> None:
    buffers = Buffers({"a": ((3,), np.dtype("float32"))})
    tensor = torch.from_numpy(buffers.take()["a"]).fill_(2)
    weight = torch.ones(3, requires_grad=True)
    loss = (weight * tensor).sum()
    del tensor
    torch.from_numpy(buffers.take()["a"]).fill_(7)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2, 2, 2]


def test_items_come_in_order_and_no_more_than_depth_ahead() -> None:
    made: list[int] = []
    third = threading.Event()

    def make() -> Iterator[int]:
        for number in range(6):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    ahead = Ahead(make, depth=2)
    assert next(ahead) == 0
    assert third.wait(10)
    assert len(made) == 3
    assert list(ahead) == [1, 2, 3, 4, 5]
    assert next(ahead, None) is None


def test_what_fails_in_the_thread_is_raised_by_the_consumer() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("here")

    ahead = Ahead(make, depth=3)
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="here"):
            next(ahead)


def test_closing_ends_the_thread_and_the_generator() -> None:
    ended = threading.Event()

    def make() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            ended.set()

    ahead = Ahead(make, depth=1)
    ahead.close()
    assert ended.is_set()


def test_who_still_asks_after_the_end_gets_one_and_does_not_wait_for_ever() -> None:
    ahead = Ahead(lambda: iter(range(9)), depth=2)
    assert next(ahead) == 0
    ahead.close()
    asking = threading.Thread(target=lambda: list(ahead), daemon=True)
    asking.start()
    asking.join(timeout=600)
    assert not asking.is_alive()
