"""GET /: a page for browsers that find the server; to everybody else there is nothing at `/`."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from html import escape
from urllib.parse import quote

from inferloop.core.errors import InferloopError, NotFound
from inferloop.net.http import Headers, Request, Response
from inferloop.prediction.live import ModelState, State
from inferloop.serving.rest.paths import Route
from inferloop.serving.services import Services

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5d6878;--paper:#fbfbf9;--card:#fff;--line:#e3e5e8;--good:#18794e;
--bad:#b4232a}@media(prefers-color-scheme:dark){:root{--ink:#e8eaee;--soft:#9aa5b4;--paper:#14171c;--card:#1b1f26;--line:#2d333d;--good:#4cc38a;
--bad:#ff8b8b}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:54rem;margin:0 auto;padding:3rem 1.25rem}h1{font-size:1.6rem;margin:0}h2{font-size:1.05rem;margin:0}
nav{margin:.75rem 0 2rem}nav a{margin-right:1.25rem}a{color:inherit;text-underline-offset:.2em}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.25rem;margin:0 0 1rem}
p{margin:.35rem 0 0;color:var(--soft)}.READY{color:var(--good)}.other{color:var(--bad)}.state{font-weight:600;font-size:.85rem}
header{display:flex;gap:.75rem;align-items:baseline;flex-wrap:wrap}code,pre{font:.85rem/1.5 ui-monospace,monospace}
pre{margin:.75rem 0 0;padding:.7rem;overflow-x:auto;border:1px solid var(--line);border-radius:.4rem;background:var(--paper)}
"""
_STYLE_HASH = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Headers = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Vary", "Accept"),
)
_BODIES = {
    "text": "-H 'Content-Type: text/plain' -d 'hello'",
    "image": "-H 'Content-Type: image/png' --data-binary @FILE.png",
    "audio": "-H 'Content-Type: audio/wav' --data-binary @FILE.wav",
}


class PageRoutes:
    """The page. Where the server asks for keys it names no model, as browsers send none."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def page(self, request: Request, _route: Route) -> Response:
        """GET / with `Accept: text/html`; anything else is a 404."""
        if b"text/html" not in request.headers.get(b"accept", b"").lower():
            raise NotFound("nothing at '/'", hint="GET /v2/models lists the models")
        host = request.headers.get(b"host", b"").decode("latin-1")
        content = _page(self._models(host))
        return Response(200, content.encode(), _HEADERS, "text/html; charset=utf-8")

    def _models(self, host: str) -> str:
        if self._services.keys is not None:
            return "<section><p>This server asks for a key: <code>GET /v2/models</code> with one lists the models.</p></section>"
        states = self._services.router.models()
        shown = "".join(self._model(state, host) for state in states)
        return shown or "<section><p>No model is open.</p></section>"

    def _model(self, state: ModelState, host: str) -> str:
        kind = "READY" if state.state is State.READY else "other"
        reason = f"<p>{escape(state.reason)}</p>" if state.reason else ""
        return (
            f'<section><header><h2><a href="/v2/models/{quote(state.name, safe="")}">{escape(state.name)}</a></h2>'
            f'<span>version {state.version}</span><span class="state {kind}">{escape(str(state.state))}</span></header>'
            f"<p>{escape(state.ref)} · {escape(str(state.role))}</p>{reason}{self._curl(state, host)}</section>"
        )

    def _curl(self, state: ModelState, host: str) -> str:
        try:
            bundle = self._services.router.bundle(state.ref)
        except InferloopError:
            return ""
        address = f"{self._services.scheme}://{host}/v2/models/{quote(state.name, safe='')}/infer"
        kinds = list(bundle.manifest.transforms.fields.values())
        if len(kinds) == 1 and kinds[0] in _BODIES:
            return f"<pre>curl {_BODIES[kinds[0]]} {escape(address)}</pre>"
        inputs = [
            {"name": spec.name, "shape": [size or 1 for size in spec.shape], "datatype": spec.dtype.value, "data": ["…"]}
            for spec in bundle.signature.inputs
        ]
        body = json.dumps({"inputs": inputs}, ensure_ascii=False).replace("'", "'\\''")
        line = f"curl -d '{body}' {address}"
        return f"<pre>{escape(line)}</pre>"


def _page(models: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>inferloop</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head><body><main>'
        "<h1>inferloop</h1><p>Models over REST: the Open Inference Protocol v2, raw images, recordings, text and JSON.</p>"
        '<nav><a href="/v2/models">Models</a><a href="/openapi.json">OpenAPI</a><a href="/metrics">Metrics</a>'
        f'<a href="/v2/health/ready">Health</a></nav>{models}</main></body></html>'
    )
