"""A request of tensors and nothing else, all outputs asked for: what most requests are, by the shortest way."""

from __future__ import annotations

from typing import NamedTuple

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import InvalidInput, NotFound, Unsupported
from inferloop.core.work import Done, Drive, Work
from inferloop.net.compress import SMALLEST, compress
from inferloop.net.http import Request, Response
from inferloop.prediction.options import NO_OPTIONS
from inferloop.prediction.prediction import Inference
from inferloop.serving.operations.refusals import explained
from inferloop.serving.rest import results
from inferloop.serving.rest.failures import failure, unsupported
from inferloop.serving.rest.messages import AnyRequest
from inferloop.serving.rest.paths import Route
from inferloop.serving.services import Services
from inferloop.serving.tracing import Tracing

SOURCE = "rest"
_KEY_HEADER = b"inferloop-key"


class Question(NamedTuple):
    """A request that has been read.

    Attributes:
        asked: its JSON.
        tensors: its inputs.
    """

    request: Request
    route: Route
    asked: AnyRequest
    tensors: Tensors


class PlainInference(Work[Response]):
    """From the tensors of a request to its answer, without a coroutine in between. Errors are answers, too."""

    __slots__ = ("_done", "_question", "_services", "_work")

    _done: Done[Response]

    def __init__(self, services: Services, question: Question) -> None:
        self._services = services
        self._question = question
        self._work: Work[Inference] | Work[Response] | None = None

    def start(self, done: Done[Response]) -> None:
        """See `Work.start`."""
        self._done = done
        try:
            work = self._work = self._asked()
        except Exception as error:  # one request fails, the server goes on
            self._fail(error)
        else:
            work.start(self._take)

    def cancel(self) -> None:
        """See `Work.cancel`."""
        if self._work is not None:
            self._work.cancel()

    def _asked(self) -> Work[Inference]:
        router, tracer = self._services.router, self._services.tracer
        request, route, _, tensors = self._question
        if tracer is None:
            return router.ask(route.model, tensors, version=route.version, key=key_of(request), source=SOURCE)
        return Drive(self._traced(tracer))

    async def _traced(self, tracer: Tracing) -> Inference:
        request, route, asked, tensors = self._question
        ask = tracer.around(self._services.router.infer, route.model, trace_of(request), asked.id)
        return await ask(route.model, tensors, version=route.version, key=key_of(request), source=SOURCE, options=NO_OPTIONS)

    def _take(self, answer: Inference | None, error: BaseException | None) -> None:
        self._work = None
        try:
            if answer is None:
                self._fail(error)
                return
            result = results.plain_result(answer, self._question.asked)
            if results.is_large(result):
                self._go_on(Drive(results.respond_from_thread(result)), self._pack)
                return
            response = results.respond(result)
        except Exception as failed:  # an output that JSON cannot say
            self._fail(failed)
        else:
            self._pack(response, None)

    def _pack(self, response: Response | None, error: BaseException | None) -> None:
        """Compress what is worth it, if the client asks."""
        self._work = None
        accepted = self._question.request.headers.get(b"accept-encoding")
        if response is None or accepted is None or len(response.body) < SMALLEST:
            self._end(response, error)
        else:
            self._go_on(Drive(compress(response, accepted)), self._end)

    def _go_on(self, work: Work[Response], then: Done[Response]) -> None:
        """Do what takes longer; it can be called off, too."""
        self._work = work
        work.start(then)

    def _end(self, response: Response | None, error: BaseException | None) -> None:
        self._work = None
        if response is None:
            self._fail(error)
        else:
            self._done(response, None)

    def _fail(self, error: BaseException | None) -> None:
        request, route, asked, tensors = self._question
        router = self._services.router
        if isinstance(error, InvalidInput | NotFound):
            error = explained(error, router, route.model, route.version, tensors=tensors, id=asked.id)
        elif isinstance(error, Unsupported):
            error = unsupported(error, router, route)
        if isinstance(error, Exception):
            self._done(failure(request, error), None)
        else:  # called off
            self._done(None, error)


def key_of(request: Request) -> str:
    """What decides about a canary, as the client said it."""
    named = request.headers.get(_KEY_HEADER)
    return "" if named is None else named.decode("utf-8", "replace")


def trace_of(request: Request) -> str:
    """The caller's `traceparent`."""
    return request.headers.get(b"traceparent", b"").decode("latin-1")
