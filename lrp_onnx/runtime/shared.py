"""A model's session, shared by the threads of a process and opened again in others."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any
from weakref import WeakSet

from numpy.typing import NDArray

from lrp_onnx.errors import ContractError, ProviderError
from lrp_onnx.runtime.bound import Bound
from lrp_onnx.runtime.session import Arrays, Session


class Shared:
    """A session for any number of threads, which goes to other processes by how it is opened.

    Runs of several threads overlap: ONNX Runtime's sessions allow that, and every run has buffers
    of its own (see `Bound`), which the next run of the same shape takes over.

    A deep copy, a pickle, and a process that was forked have no session until the first use opens
    one: the threads of the runtime do not survive a fork.

    Args:
        session: the session of this process.
        again: opens it in another one; it is pickled with this object.
        one_by_one: whether runs wait for each other, as CUDA graphs need it.
    """

    def __init__(
        self, session: Session, again: Callable[[], Session], *, one_by_one: bool = False
    ) -> None:
        self._again, self._one_by_one = again, one_by_one
        self._provider, self._metadata = session.provider, session.metadata
        self._start()
        self._session: Session | None = session

    def _start(self, *, forked: bool = False) -> None:
        """Be without a session and without runs."""
        self._session, self._forked = None, forked
        self._idle: deque[Bound] = deque()  # taking and giving back are atomic
        self._opening = Lock()
        self._turn: AbstractContextManager[Any] = Lock() if self._one_by_one else nullcontext()
        _alive.add(self)

    @property
    def session(self) -> Session:
        """The session of this process.

        Raises:
            ContractError: it is opened again, and the file is another one by now.
            ProviderError: it is on CUDA, which no forked process can use.
            What opening raises.
        """
        with self._opening:
            if self._session is None:
                self._session = self._opened_again()
            return self._session

    def _opened_again(self) -> Session:
        if self._forked and self._provider == "cuda":
            raise ProviderError(
                "this process was forked after its Explainer had opened a session on CUDA, which "
                'works in no forked process: use multiprocessing.get_context("spawn"), or make '
                "the Explainer in the new process"
            )
        session = self._again()
        if session.metadata != self._metadata:
            raise ContractError(
                "the compiled file has changed since this Explainer was made, so that it cannot "
                "be opened again in another process: make a new Explainer"
            )
        return session

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run once; see `Bound.run`."""
        with self._turn:
            bound = self._taken(feeds)
            outputs = bound.run(feeds)
            self._idle.append(bound)
        return outputs

    def _taken(self, feeds: Mapping[str, NDArray[Any]]) -> Bound:
        """A run that no other thread uses."""
        try:
            bound = self._idle.pop()
        except IndexError:
            return Bound(self.session, feeds)
        return bound if bound.fits(feeds) else Bound(self.session, feeds)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def abandon(self) -> None:
        """Forget the session, in a process that was forked from that which opened it.

        It is not closed: that would wait for its threads, which this process has not.
        """
        _abandoned.append((self._session, self._idle))
        self._start(forked=self._forked or self._session is not None)


_PICKLED = ("_again", "_one_by_one", "_provider", "_metadata")
_alive: WeakSet[Shared] = WeakSet()
_abandoned: list[Any] = []


def _after_fork() -> None:
    for shared in list(_alive):
        shared.abandon()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
