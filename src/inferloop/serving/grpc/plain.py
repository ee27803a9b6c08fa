"""A call of tensors and nothing else: what most calls are, by the shortest way."""

from __future__ import annotations

from inferloop.core.errors import InferloopError, InvalidInput, NotFound
from inferloop.core.work import Done, Work
from inferloop.net.grpc_call import Call
from inferloop.prediction.prediction import Inference
from inferloop.prediction.router import Router
from inferloop.serving.grpc.answers import Answers
from inferloop.serving.grpc.requests import InferRequest
from inferloop.serving.grpc.rpc import PREDICTION_ID, tell_hint
from inferloop.serving.operations.refusals import explained

SOURCE = "grpc"
_KEY = "inferloop-key"


class PlainInference(Work[bytes]):
    """From the tensors of a `ModelInferRequest` to the bytes of its answer, without a coroutine in between."""

    __slots__ = ("_answers", "_call", "_done", "_request", "_router", "_work")

    _done: Done[bytes]

    def __init__(self, router: Router, answers: Answers, call: Call, request: InferRequest) -> None:
        self._router = router
        self._answers = answers
        self._call = call
        self._request = request
        self._work: Work[Inference] | None = None

    def start(self, done: Done[bytes]) -> None:
        """See `Work.start`."""
        self._done = done
        call, request = self._call, self._request
        plan = request.plan
        try:
            key = first(call, _KEY)
            work = self._work = self._router.ask(
                plan.model, request.tensors, version=plan.version, key=key, deadline=call.deadline, source=SOURCE
            )
        except Exception as error:  # one call fails, the server goes on
            self._fail(error)
        else:
            work.start(self._take)

    def cancel(self) -> None:
        """See `Work.cancel`."""
        if self._work is not None:
            self._work.cancel()

    def _take(self, answer: Inference | None, error: BaseException | None) -> None:
        self._work = None  # it knows us: no circle for the garbage collector
        if answer is None:
            self._fail(error)
            return
        try:
            message = self._encoded(answer)
        except Exception as failed:  # an output that has no form on the wire
            self._fail(failed)
        else:
            self._done(message, None)

    def _encoded(self, answer: Inference) -> bytes:
        self._call.set_trailers({PREDICTION_ID: answer.id})
        request = self._request
        if request.is_raw:
            return self._answers.raw(answer.model, answer.version, request.id, answer.outputs)
        return self._answers.full(answer.model, answer.version, request.id, answer.outputs, parameters={}, is_raw=False)

    def _fail(self, error: BaseException | None) -> None:
        request = self._request
        if isinstance(error, InvalidInput | NotFound):
            plan = request.plan
            error = explained(error, self._router, plan.model, plan.version, tensors=request.tensors, id=request.id.decode())
        if isinstance(error, InferloopError):
            tell_hint(self._call, error)
        self._done(None, error)


def first(call: Call, wanted: str) -> str:
    """The first metadata of a name; empty without one."""
    for name, value in call.metadata:
        if name == wanted:
            return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return ""
