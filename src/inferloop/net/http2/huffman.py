"""The Huffman code of HPACK (RFC 7541, 5.2 and Appendix B), decoded a byte at a time.

The code is canonical, so the lengths say it all. The decoder is a machine whose states are the inner nodes of the tree; a cell of
its table, made when it is first met, says for a state and a byte what comes out and which state follows.
"""

from __future__ import annotations

LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
)  # fmt: skip
"""Bits of the code of each byte, and of the end of string (256)."""

EOS = 256
_PADDING_BITS = 7


def codes() -> list[int]:
    """The code of each symbol, made from the lengths."""
    result = [0] * len(LENGTHS)
    code = 0
    length = 0
    for symbol in sorted(range(len(LENGTHS)), key=lambda s: (LENGTHS[s], s)):
        code <<= LENGTHS[symbol] - length
        length = LENGTHS[symbol]
        result[symbol] = code
        code += 1
    return result


def _tree() -> list[list[int]]:
    """Inner nodes; a child is another node, or `~symbol`."""
    nodes: list[list[int]] = [[0, 0]]
    for symbol, code in enumerate(codes()):
        node = 0
        for shift in range(LENGTHS[symbol] - 1, 0, -1):
            bit = code >> shift & 1
            if not nodes[node][bit]:
                nodes[node][bit] = len(nodes)
                nodes.append([0, 0])
            node = nodes[node][bit]
        nodes[node][code & 1] = ~symbol
    return nodes


_NODES = _tree()


class _State(list["tuple[_State, bytes] | None"]):
    """An inner node, as a row of the table: what comes out for each byte, and the state that follows; None if it was not met yet.

    `may_end`: a string may end here, after a whole symbol and at most seven bits of the end of string, which are ones.
    """

    __slots__ = ("may_end", "node")

    def __init__(self, node: int) -> None:
        super().__init__([None] * 256)
        self.node = node
        self.may_end = node in _ENDS


def _padding() -> frozenset[int]:
    ends = [0]
    for _ in range(_PADDING_BITS):
        ends.append(_NODES[ends[-1]][1])
    return frozenset(ends)


_ENDS = _padding()
_STATES: dict[int, _State] = {}
_START = _STATES[0] = _State(0)


def decode(data: bytes) -> bytes | None:
    """The string of a Huffman-coded literal; None if it holds the end of string or wrong padding."""
    state = _START
    out = []
    for byte in data:
        cell = state[byte] or _cell(state, byte)
        if cell is None:
            return None
        state, part = cell
        out.append(part)
    return b"".join(out) if state.may_end else None


def _cell(state: _State, byte: int) -> tuple[_State, bytes] | None:
    node = state.node
    out = bytearray()
    for shift in range(7, -1, -1):
        child = _NODES[node][byte >> shift & 1]
        if child == ~EOS:
            return None
        if child < 0:
            out.append(~child)
            child = 0
        node = child
    follows = _STATES.get(node)
    if follows is None:
        follows = _STATES[node] = _State(node)
    cell = state[byte] = (follows, bytes(out))
    return cell
