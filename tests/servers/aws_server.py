"""AWS over HTTP for unmodified boto3: moto's server, with an overlay for what moto leaves at zero.

Everything that a test needs to know passes one place, the `Overlay`: each request is kept, may be
answered or refused by what the test has seeded, and is else answered by moto; the answer may then
be edited before it leaves. A service with figures of its own has a file that seeds them in terms of
the service (`tests.servers.aws_athena`).

    with aws_server() as aws:
        aws.edit("athena", "GetQueryExecution", lambda request, answer: …)
        client = aws.client("athena")

Emulator: moto 5. It proves that we read what boto3 sends and gets; that AWS fills the figures in
the same way it cannot prove.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, deque
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    Answer = dict[str, Any]
    Edit = Callable[[Answer, Answer], Answer | None]
    App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
MODELS = Path(__file__).parents[1] / "data" / "botocore"
"""For ``AWS_DATA_PATH``: what the newest botocore knows, for one that is held back."""


class Request(NamedTuple):
    """What came over the wire."""

    service: str
    """As it was signed for: ``athena``, ``s3``."""
    operation: str
    """``StartQueryExecution``; of services without operations in a header, ``GET /bucket/key``,
    unless they are known by `Overlay.rest`."""
    body: bytes
    headers: dict[str, str]
    named: tuple[tuple[str, str], ...] = ()
    """What stands in the path and the query of a service that is known by `Overlay.rest`."""

    @property
    def params(self) -> dict[str, Any]:
        """The body of a service that speaks JSON, with what stands in its path."""
        body = cast("dict[str, Any]", json.loads(self.body or b"{}"))
        return {**body, **dict(self.named)}


class Refusal(NamedTuple):
    """An error to answer with."""

    code: str
    message: str = "refused by the test"
    status: int = 400
    headers: tuple[tuple[str, str], ...] = ()


class Overlay:
    """A WSGI application before moto's."""

    def __init__(self, moto: App) -> None:
        self._moto = moto
        self._edits: dict[tuple[str, str], list[Edit]] = {}
        self._answers: dict[tuple[str, str], Callable[[Answer], Answer | Refusal]] = {}
        self._refusals: dict[tuple[str, str], deque[Refusal]] = {}
        self._routes: dict[str, list[tuple[str, re.Pattern[str], str]]] = {}
        self._lock = threading.Lock()
        self.requests: list[Request] = []

    # -- what a test says -----------------------------------------------------------------------

    def edit(self, service: str, operation: str, edit: Edit) -> None:
        """Have `edit(request, answer)` change what moto answers, or return another answer."""
        self._edits.setdefault((service, operation), []).append(edit)

    def answer(
        self, service: str, operation: str, answer: Callable[[Answer], Answer | Refusal]
    ) -> None:
        """Answer in moto's stead, for what it does not know."""
        self._answers[service, operation] = answer

    def rest(self, service: str) -> None:
        """Know the operations of a REST service by their names, as botocore's model of it has them."""
        session: Any = import_module("botocore.session").get_session()
        model: Any = session.get_service_model(service)
        self._routes[service] = []
        for name in model.operation_names:
            http = model.operation_model(name).http
            path = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(http["requestUri"]))
            self._routes[service].append((http["method"], re.compile(path), name))

    def _known(self, request: Request, environ: dict[str, Any]) -> Request:
        for method, path, name in self._routes.get(request.service, ()):
            found = path.fullmatch(environ["PATH_INFO"])
            if found is not None and method == environ["REQUEST_METHOD"]:
                named = (*found.groupdict().items(), *parse_qsl(environ.get("QUERY_STRING", "")))
                return request._replace(operation=name, named=named)
        return request

    def answers(self, service: str, operation: str) -> Callable[[Answer], Answer | Refusal]:
        """Return what answers in moto's stead."""
        return self._answers[service, operation]

    def refuse(self, service: str, operation: str, *refusals: Refusal) -> None:
        """Answer the next requests with these errors, one each."""
        self._refusals.setdefault((service, operation), deque()).extend(refusals)

    def asked(self, service: str, operation: str | None = None) -> list[Request]:
        """Return the requests to a service, in their order."""
        return [
            request
            for request in list(self.requests)
            if request.service == service and operation in (None, request.operation)
        ]

    def counts(self, service: str) -> dict[str, int]:
        """How many requests of each operation of a service there were."""
        return dict(Counter(request.operation for request in self.asked(service)))

    # -- the application ------------------------------------------------------------------------

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        request = self._known(_request(environ), environ)
        with self._lock:
            self.requests.append(request)
            waiting = self._refusals.get((request.service, request.operation))
            refusal = waiting.popleft() if waiting else None
        return self.respond(request, refusal, environ, start_response)

    def respond(
        self,
        request: Request,
        refusal: Refusal | None,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
    ) -> Iterable[bytes]:
        """Answer with the refusal, with what was seeded, or with what moto says."""
        key = request.service, request.operation
        if refusal is None and key in self._answers:
            said = self._answers[key](request.params)
            if isinstance(said, Refusal):
                refusal = said
            else:
                return _json(start_response, "200 OK", said)
        if refusal is not None and request.service == "s3":
            return _xml(start_response, refusal)
        if refusal is not None:
            body = {"__type": refusal.code, "message": refusal.message}
            return _json(start_response, f"{refusal.status} Refused", body, refusal.headers)
        edits = self._edits.get(key)
        if edits is None:
            return self._moto(environ, start_response)
        status, answer = self._ask(environ)
        if status.startswith("200"):
            for edit in edits:
                changed = edit(request.params, answer)
                answer = answer if changed is None else changed
        return _json(start_response, status, answer)

    def _ask(self, environ: dict[str, Any]) -> tuple[str, Answer]:
        heard: list[str] = []

        def start(status: str, *_: object) -> None:
            heard.append(status)

        body = b"".join(self._moto(environ, start))
        return heard[0], cast("Answer", json.loads(body or b"{}"))


def _request(environ: dict[str, Any]) -> Request:
    size = int(environ.get("CONTENT_LENGTH") or 0)
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "")
    body = b"" if chunked else environ["wsgi.input"].read(size)
    if not chunked:
        environ["wsgi.input"] = BytesIO(body)
    headers = {
        name[5:].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    signed = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", headers.get("authorization", ""))
    target = headers.get("x-amz-target", "").rpartition(".")[2]
    plain = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    return Request(signed[1] if signed else "", target or plain, body, headers)


def _json(
    start_response: Callable[..., Any],
    status: str,
    body: Answer,
    headers: tuple[tuple[str, str], ...] = (),
) -> Iterable[bytes]:
    text = json.dumps(body).encode()
    kind = ("Content-Type", "application/x-amz-json-1.1")
    start_response(status, [kind, ("Content-Length", str(len(text))), *headers])
    return [text]


def _xml(start_response: Callable[..., Any], refusal: Refusal) -> Iterable[bytes]:
    """Refuse as S3 does."""
    code, message, status, headers = refusal
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    kind = ("Content-Type", "application/xml")
    length = ("Content-Length", str(len(text)))
    start_response(f"{status} Refused", [kind, length, *headers])
    return [text]


class AWSServer(Overlay):
    """The overlay and moto on a port of their own."""

    url: str

    def client(self, service: str, **more: Any) -> Any:
        """Return an unmodified boto3 client that talks to this server."""
        return boto3().client(service, **{**self.access, **more})

    @property
    def access(self) -> dict[str, Any]:
        """What a client of AWS needs to come here."""
        return {
            "endpoint_url": self.url,
            "region_name": REGION,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
        }


def boto3() -> Any:
    """Return the library, which has no types of its own."""
    return import_module("boto3")


@contextmanager
def aws_server() -> Generator[AWSServer]:
    """Run a server that has seen nothing yet, until the block ends."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    app = AWSServer(cast("App", DomainDispatcherApplication(create_backend_app)))
    server: Any = make_server(
        "127.0.0.1", 0, cast("Any", app), threaded=True, request_handler=Quiet
    )
    server.daemon_threads = True
    app.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="aws-server", daemon=True)
    thread.start()
    try:
        _forget()
        yield app
    finally:
        _forget()
        server.shutdown()
        thread.join()
        server.server_close()


def _forget() -> None:
    """Let moto begin anew: its backends are the process's."""
    from moto.core.model_instances import reset_model_data

    reset_model_data()
