"""Lines come out whole and in order, and nobody waits for whoever reads them."""

import os
import threading
import time

import pytest

from stickyproxy.dataplane.log_writer import CLOSE_S, PIECE_BYTES, LogWriter


class Pipe:
    """A pipe, and a writer to it."""

    def __init__(self, most_lines: int = 10_000) -> None:
        self.reader, self.end = os.pipe()
        self.dropped = 0
        self.writer = LogWriter(self.end, self._drop, most_lines=most_lines)

    def _drop(self) -> None:
        self.dropped += 1

    def rest(self) -> bytes:
        """Close the writing end and read all."""
        os.close(self.end)
        pieces = []
        while piece := os.read(self.reader, 65536):
            pieces.append(piece)
        os.close(self.reader)
        return b"".join(pieces)

    def close(self) -> None:
        for end in (self.reader, self.end):
            os.close(end)


def test_all_lines_are_written_in_order_by_the_end() -> None:
    pipe = Pipe()
    lines = [b"%d\n" % number for number in range(5000)]
    for line in lines:
        pipe.writer.write(line)
    pipe.writer.close()
    pipe.writer.close()
    assert pipe.rest() == b"".join(lines)
    assert pipe.dropped == 0


def test_without_a_line_there_is_no_thread() -> None:
    before = threading.active_count()
    pipe = Pipe()
    pipe.writer.close()
    assert threading.active_count() == before
    assert pipe.rest() == b""


def test_a_reader_that_does_not_read_costs_lines_and_no_time() -> None:
    pipe = Pipe(most_lines=100)
    line = b"x" * 999 + b"\n"
    for _ in range(1000):
        pipe.writer.write(line)
        if pipe.dropped > 10:
            break
        time.sleep(0)  # let the thread have its turn: whatever it takes, the pipe takes 64 KiB at the most
    assert pipe.dropped > 10
    began = time.monotonic()
    pipe.writer.close()
    assert time.monotonic() - began < CLOSE_S + 2
    written = []
    while piece := os.read(pipe.reader, 1 << 20):  # now somebody reads: what waited comes whole, then it ends
        written.append(piece)
        if sum(map(len, written)) >= 100 * len(line):
            break
    assert set(b"".join(written).splitlines()) == {line[:-1]}
    pipe.writer.close()
    pipe.close()


def test_a_descriptor_that_does_not_block_loses_nothing() -> None:
    pipe = Pipe()
    os.set_blocking(pipe.end, False)
    lines = [b"%0999d\n" % number for number in range(500)]
    for line in lines:
        pipe.writer.write(line)
    read: list[bytes] = []
    while sum(map(len, read)) < 500 * 1000:
        read.append(os.read(pipe.reader, 65536))
    pipe.writer.close()
    assert b"".join(read) == b"".join(lines)
    pipe.close()


def test_a_broken_descriptor_is_said_once_and_then_lines_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    pipe.writer.write(b"one\n")
    for _ in range(1000):
        if caplog.records:
            break
        time.sleep(0.01)
    pipe.writer.write(b"two\n")
    pipe.writer.close()
    assert [r.getMessage() for r in caplog.records] == [
        "the access log cannot be written to standard output: Broken pipe; it is off from now on"
    ]
    assert pipe.dropped == 1
    os.close(pipe.end)


def test_a_line_longer_than_a_piece_is_written_whole() -> None:
    pipe = Pipe()
    line = b"y" * (3 * PIECE_BYTES) + b"\n"
    pipe.writer.write(line)
    pipe.writer.write(b"z\n")
    pipe.writer.close()
    assert pipe.rest() == line + b"z\n"
