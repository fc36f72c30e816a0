"""A TCP proxy of ours between a client and a server: delays, black holes, resets, replies dropped after execution."""

import asyncio
import contextlib
import random


class Proxy:
    """Forwards a port. Its faults may be set at any time.

    delay: seconds that every piece of data waits, both ways.
    black_hole: data is read and goes nowhere; connections stay open.
    drop_reply_to: bytes; whoever sends them has them carried out, gets no answer, and loses the connection.
    drop_share: how likely the same befalls anything that is sent.
    """

    def __init__(self, port, *, seed=0):
        self._target = port
        self._draw = random.Random(seed)
        self._pairs = set()
        self._tasks = set()
        self.delay = 0.0
        self._passable = asyncio.Event()
        self._passable.set()
        self.drop_reply_to = None
        self.drop_share = 0.0
        self._until_black_hole = None
        self.dropped = 0

    @property
    def black_hole(self):
        return not self._passable.is_set()

    @black_hole.setter
    def black_hole(self, deep):
        self._passable.clear() if deep else self._passable.set()

    def black_hole_after(self, count):
        """Let this many pieces of data through to the server from now on; the next one is the first that is lost."""
        self.black_hole = False
        self._until_black_hole = count

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def aim(self, port):
        """Forward new connections elsewhere."""
        self._target = port

    def reset(self):
        """Cut every connection."""
        for writer in list(self._pairs):
            writer.transport.abort()

    async def close(self):
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(task := asyncio.current_task())
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._pairs |= {writer, far_writer}
        doomed = asyncio.Event()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(
                self._pump(reader, far_writer, doomed, requests=True),
                self._pump(far_reader, writer, doomed, requests=False),
            )
        for end in (writer, far_writer):
            self._pairs.discard(end)
            end.transport.abort()

    async def _pump(self, reader, writer, doomed, *, requests):
        while data := await reader.read(65536):
            if requests and self._drops_reply_to(data):
                self.dropped += 1
                doomed.set()
            if requests:
                self._count_down()
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._passable.wait()
            if not requests and doomed.is_set():
                break
            writer.write(data)
            await writer.drain()
        raise ConnectionError("one end is gone")

    def _count_down(self):
        if self._until_black_hole is not None:
            self.black_hole = self._until_black_hole <= 0
            self._until_black_hole -= 1

    def _drops_reply_to(self, data):
        if self.drop_reply_to and self.drop_reply_to in data:
            return True
        return self.drop_share > 0 and self._draw.random() < self.drop_share
