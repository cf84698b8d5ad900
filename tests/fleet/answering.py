"""A real HTTP server that answers as it is told: the gateway's stand-in, and the object store's."""

import email.parser
import email.policy
import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test"


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def parts(self) -> list[tuple[str, str | None, str, bytes]]:
        """The parts of a multipart body: name, file name, media type, content."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self.body)
        return [
            (
                part.get_param("name", header="content-disposition"),
                part.get_filename(),
                part.get_content_type(),
                part.get_payload(decode=True),
            )
            for part in message.iter_parts()
        ]


@dataclass
class Answer:
    """What the server says next; ``drop`` closes the connection without a word."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


class Server:
    """Gives the queued answers in order, the last one for ever, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.seen: list[Seen] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {key.lower(): value for key, value in self.headers.items()}
                outer.seen.append(Seen(self.command, self.path, headers, body))
                answer = outer.answers.popleft() if len(outer.answers) > 1 else outer.answers[0]
                if answer.drop:
                    self.close_connection = True
                    return
                is_problem = answer.status >= 400 and isinstance(answer.body, dict)
                text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                self.send_response(answer.status)
                if answer.status == 204:
                    self.end_headers()
                    return
                kind = "text/plain" if isinstance(answer.body, str) else "application/json"
                headers = {"Content-Type": "application/problem+json" if is_problem else kind, **answer.headers}
                for key, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, format: str, *args: Any) -> None:
                """Keeps the test's output clean."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def will_answer(self, *answers: Answer) -> None:
        self.answers.extend(answers)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def task_document(status: str = "queued", **fields: Any) -> dict[str, Any]:
    return {"id": "task_1", "kind": "image", "model": "ovis2-reader", "status": status, **fields}


def problem(status: int, code: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"urn:ovis:{code}", "title": "Title", "status": status, "code": code, **fields}
