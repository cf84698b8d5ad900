"""Large files: to the fleet's store directly, not through the gateway."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ovis_fleet.errors import ProtocolError
from ovis_fleet.sources import Submission, existing_file, media_type_of, opened, size_of
from ovis_fleet.tenant_records import Upload
from ovis_fleet.wire import Ask, Flow, ask, read_object, read_record, send

#: Files of more bytes together go to the store: well below the gateway's own limit of a body (32 MiB by default).
LARGE_BYTES = 8 * 2**20


def upload(source: Path | str | bytes) -> Flow[Upload]:
    """Sends a file or bytes to the fleet's store; the result is a source for tasks, for a day.

    Raises:
        SourceError: for a file that isn't there.
    """
    file = source if isinstance(source, bytes) else existing_file(source)
    announced = {"size_bytes": size_of(file), "media_type": media_type_of(file)}
    # Repeated, an announcement leaves one behind that nothing is sent for, which is nothing.
    response = yield from ask("POST", "/v1/uploads", json=announced)
    made, form = read_record(response, Upload), read_object(response).get("post")
    if not isinstance(form, dict) or not {"url", "fields"} <= form.keys():
        raise ProtocolError(f"{response.url} did not answer with a form")
    content = partial(_form, file, form["fields"])
    yield from send(Ask("POST", form["url"], content=content, is_foreign=True))
    return made


def without_large_files(submission: Submission) -> Flow[Submission]:
    """Uploads the files of a submission that is too large for one request."""
    if sum(map(size_of, submission.files)) <= LARGE_BYTES:
        return submission
    uploads = []
    for file in submission.files:
        made = yield from upload(file)
        uploads.append(made)
    return Submission.of(submission.body, uploads)


def _form(file: Path | bytes, fields: dict[str, str], stack: ExitStack) -> dict[str, Any]:
    return {"data": fields, "files": {"file": opened(file, stack)}}
