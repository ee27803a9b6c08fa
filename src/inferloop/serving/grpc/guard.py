"""Keys before calls: each method asks for the scope that `serving.scopes` names for it."""

from __future__ import annotations

from inferloop.core.errors import InferloopError
from inferloop.net.grpc_call import Call
from inferloop.serving.grpc.rpc import Rpc, Unary, tell_hint
from inferloop.serving.keys import Keys
from inferloop.serving.scopes import Need, of_rpc

_HEADER = "authorization"


def guarded(path: str, rpc: Rpc, keys: Keys) -> Rpc:
    """The same method behind a key."""
    need = of_rpc(path)
    if need is Need.OPEN:
        return rpc

    async def handle(call: Call) -> None:
        _require(keys, need, call)
        await rpc.handle(call)

    return Rpc(handle, streams=rpc.streams, unary=None if rpc.unary is None else _guarded_unary(rpc.unary, keys, need))


def _guarded_unary(unary: Unary, keys: Keys, need: Need) -> Unary:
    async def answer(call: Call, message: bytes) -> bytes:
        _require(keys, need, call)
        return await unary(call, message)

    return answer


def _require(keys: Keys, need: Need, call: Call) -> None:
    sent = next((value for name, value in call.metadata if name == _HEADER), None)
    try:
        keys.require(need, sent)
    except InferloopError as error:
        tell_hint(call, error)
        raise
