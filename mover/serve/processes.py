"""A child process and the channel to it: started as a program, watched by a pidfd, never trusted."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from config.log import facts
from mover.serve.errors import Misbehaved
from workers.lane import channel
from workers.lane.channel import Channel, ChannelBroken, ChannelClosed

log = logging.getLogger(__name__)

# One child's messages must not keep the loop from the others'.
MESSAGES_PER_TURN = 64
# A child that leaves messages unread for so long is stopped or stuck.
UNREAD_S = 10.0
# A child that leaves so many questions unanswered hangs.
QUESTIONS = 4
# A child that closed its channel is about to exit; one that is not is killed.
EXIT_S = 1.0

Received = TypeVar("Received")


class Child(Generic[Received]):
    """A running program.

    `on_message(message, fds)` gets what it says; it takes the descriptors that it keeps out of the list, the others
    are closed, and it raises Misbehaved to have the child killed. `on_end(status)` is called once, after the last
    message: the exit status, negative for a signal.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        received: Any,
        on_message: Callable[[Received, list[int]], None],
        on_end: Callable[[int], None],
    ) -> None:
        """Start the program. Raises OSError when it cannot be."""
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_end = on_end
        self._timers: list[asyncio.TimerHandle] = []
        self._unread: asyncio.TimerHandle | None = None
        self._unanswered = 0
        ours, theirs = channel.pair()
        with theirs:
            try:
                self._process = _started([*command, "--control-fd", str(theirs.fileno())], environment, theirs.fileno())
            except OSError:
                ours.close()
                raise
        self.pid = self._process.pid
        self.ended = False
        self._pidfd = os.pidfd_open(self.pid)
        self._channel: Channel[Received] = Channel(ours, received)
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._loop.add_reader(self._pidfd, self._exited)

    def adopt(self, on_message: Callable[[Received, list[int]], None], on_end: Callable[[int], None]) -> None:
        """From here on somebody else listens to it."""
        self._on_message, self._on_end = on_message, on_end

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> bool:
        """Send a message with duplicates of `fds`; False if the child is gone or about to be."""
        if self.ended:
            return False
        try:
            self._channel.send(message, fds)
        except ChannelClosed:
            return False  # its end was closed; `on_end` follows
        except ChannelBroken as error:
            self.kill(error.why)
            return False
        if self._channel.backlog and self._unread is None:
            self._loop.add_writer(self._channel.fileno(), self._writable)
            self._unread = self.within(UNREAD_S, f"it reads no messages for {UNREAD_S:g} s")
        return True

    def keep_asking(self, question: msgspec.Struct, silence_s: float) -> None:
        """Ask again and again, and kill the child when it has said nothing for about `silence_s` seconds.

        Questions are counted, not seconds: when the whole host stood still, nobody is to blame.
        """
        if self._unanswered >= QUESTIONS:
            self.kill(f"it has said nothing for {silence_s:g} s")
            return
        self._unanswered += 1
        self.send(question)
        self.later(silence_s / QUESTIONS, lambda: self.keep_asking(question, silence_s))

    def within(self, deadline_s: float, why: str) -> asyncio.TimerHandle:
        """Kill the child in `deadline_s` seconds unless the handle is cancelled or the child has ended before."""
        return self.later(deadline_s, lambda: self.kill(why))

    def later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back in `delay_s` seconds unless the handle is cancelled or the child has ended before."""
        now_s = self._loop.time()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > now_s]
        self._timers.append(self._loop.call_later(delay_s, callback))
        return self._timers[-1]

    def kill(self, why: str = "") -> None:
        """End the child at once; a `why` is logged as its fault."""
        if self.ended:
            return
        if why:
            log.error("killed a child that misbehaved", extra=facts(pid=self.pid, why=why))
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _readable(self) -> None:
        try:
            for _ in range(MESSAGES_PER_TURN):
                if not self._receive():
                    return
        except ChannelClosed:
            self._loop.remove_reader(self._channel.fileno())
            self.within(EXIT_S, "it closed its channel and did not exit")
        except (ChannelBroken, Misbehaved) as error:
            self._loop.remove_reader(self._channel.fileno())
            self.kill(error.why)

    def _receive(self) -> bool:
        """Handle one message; False when none waits."""
        received = self._channel.receive()
        if received is None:
            return False
        message, fds = received
        self._unanswered = 0
        try:
            self._on_message(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _writable(self) -> None:
        try:
            done = self._channel.flush()
        except ChannelClosed:
            done = True
        if done:
            self._all_read()

    def _all_read(self) -> None:
        self._loop.remove_writer(self._channel.fileno())
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _exited(self) -> None:
        self._receive_rest()
        self.ended = True
        for timer in self._timers:
            timer.cancel()
        self._all_read()
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_reader(self._pidfd)
        self._channel.close()
        os.close(self._pidfd)
        self._on_end(self._process.wait())

    def _receive_rest(self) -> None:
        """Read what the child said before it died: a connection it announced last must be fenced too.

        A message that is none does not hide those behind it: each is a packet of its own.
        """
        while True:
            try:
                if not self._receive():
                    return
            except ChannelClosed:
                return
            except (ChannelBroken, Misbehaved) as error:
                log.error("a dead child's message is no use", extra=facts(pid=self.pid, why=error.why))


def _started(command: list[str], environment: Mapping[str, str], control_fd: int) -> subprocess.Popen[bytes]:
    """A session of its own: the terminal's Ctrl-C is for the supervisor, which then asks the children to leave."""
    return subprocess.Popen(
        command, pass_fds=[control_fd], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
