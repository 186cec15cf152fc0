"""What a decoder logs is heard by the thread that decodes, whoever else decodes meanwhile."""

from concurrent.futures import ThreadPoolExecutor

import av.logging

from qle.extract.decode.pyav import _Messages


def test_a_thread_hears_its_messages_when_another_one_has_stopped_to_listen() -> None:
    """The pictures of a page are decoded in several threads: the first that was done turned the messages of all others off, and
    the last one left them on, for everything that was decoded afterwards."""
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    first, second = _Messages(), _Messages()
    with ThreadPoolExecutor(1) as other:
        first.__enter__()
        heard = other.submit(second.__enter__).result()
        first.__exit__()
        other.submit(av.logging.log, av.logging.ERROR, "codec", "a bit is wrong").result()
        other.submit(second.__exit__).result()
    assert [text for _, _, text in heard] == ["a bit is wrong"]
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before
