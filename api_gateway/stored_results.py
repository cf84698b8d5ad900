"""Results as the blob store holds them, as answers: short ones as they are, long ones by redirection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, RedirectResponse

from api_gateway.blob_calls import BlobCalls
from api_gateway.errors import Refused
from contract.assembly import MEDIA_TYPES, Assembly, ResultFormat
from contract.errors import Gone, InputUnavailable, InvalidRequest
from contract.rendering import PartDocument, as_vtt
from contract.task import PartResult

#: Longest assembled document that passes through the gateway; longer ones are read from the blob store. 256 KiB.
MAX_PASSED_BYTES = 256 * 1024


async def stored_document(result: PartResult, blobs: BlobCalls) -> dict[str, Any]:
    """One part's result, whole.

    Raises:
        Gone: It isn't there any more.
        BlobsUnavailable: The object store is away.
    """
    document: dict[str, Any] = json.loads(await _get(result.blob_key, blobs))
    return document


async def assembly_response(assembly: Assembly, wanted: ResultFormat, blobs: BlobCalls) -> Response:
    """One form of a whole document.

    Raises:
        Refused: The task has no such form.
        Gone: It isn't there any more.
        BlobsUnavailable: The object store is away.
    """
    file = assembly.files.get(wanted)
    if file is None:
        raise no_such_form(wanted, assembly.files)
    if file.size_bytes <= MAX_PASSED_BYTES:
        return Response(await _get(file.key, blobs), media_type=MEDIA_TYPES[wanted])
    store = blobs.store
    url = store.presigned_get(store.bucket, file.key, content_type=f"{MEDIA_TYPES[wanted]}; charset=utf-8")
    return RedirectResponse(url, status_code=303)


def document_response(document: dict[str, Any], wanted: ResultFormat) -> Response:
    """One part's result in the form that is wanted.

    Raises:
        Refused: It has no such form.
    """
    if wanted == "json":
        return JSONResponse(document)
    text = document["text"] or ""
    if wanted == "vtt":
        part = PartDocument.model_validate({**document, "text": text})
        if part.times_s is None:
            raise no_such_form(wanted, ("json", "text", "markdown"))
        text = "".join(as_vtt([part]))
    return Response(text, media_type=MEDIA_TYPES[wanted])


def no_such_form(wanted: str, forms: Iterable[str]) -> Refused:
    """The refusal of a form that the result doesn't have."""
    message = f"this result has no form {wanted}, but {', '.join(sorted(forms))}"
    return Refused.parameter("format", InvalidRequest(message))


async def _get(key: str, blobs: BlobCalls) -> bytes:
    try:
        return await blobs.get(key)
    except InputUnavailable as exc:
        raise Gone("the stored result isn't there any more") from exc
