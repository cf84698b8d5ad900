"""Bytes in S3: inputs that the gateway stored, and results.

Keys: ``inputs/<tenant>/<task>/<n>``, ``results/<tenant>/<task>/attempt-<n>/<part>.json``, of a planned task as a whole
``results/<tenant>/<task>/assembly-<n>/document.*``, uploads that wait for a task as ``incoming/<tenant>/<upload>/0``,
kept answers as ``cache/<tenant>/<question>/answer.json``, files of batches as ``files/<tenant>/<file>/<n>``. A result
is committed by the record that points to it, so a late attempt's object is never read.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, BinaryIO

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from contract.errors import BlobsUnavailable, InputUnavailable
from contract.settings import FleetSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

#: Answers that say an object isn't in our own bucket. That the bucket is missing or closed is a fault of ours.
_MISSING = frozenset({"NoSuchKey", "404"})

#: Answers that say an object of the caller's, or the right to it, is missing, rather than that S3 is away.
_ABSENT = _MISSING | {"NoSuchBucket", "AccessDenied", "403"}


def input_key(tenant: str, task_id: str, index: int) -> str:
    """Where the gateway stores the n-th inline picture of a task."""
    return f"inputs/{tenant}/{task_id}/{index}"


#: How long an upload is kept for a task to name it, in seconds.
UPLOAD_KEPT_S = 86_400


def upload_key(tenant: str, upload_id: str) -> str:
    """Where an upload lies. No tenant's ``s3_prefixes`` should lead here: ids are the way to name it."""
    return f"incoming/{tenant}/{upload_id}/0"


def result_key(tenant: str, task_id: str, part: int, claim: int) -> str:
    """Where a worker stores what one attempt of a part gave.

    Args:
        claim: How often the part had been claimed: unlike the attempt's number it never repeats, so a late attempt
            can't write over a committed result.
    """
    return f"results/{tenant}/{task_id}/attempt-{claim}/{part}.json"


def cache_key(tenant: str, question: str) -> str:
    """Where a worker keeps the answer to a question, by the question's digest."""
    return f"cache/{tenant}/{question}/answer.json"


def task_prefixes(tenant: str, task_id: str) -> tuple[str, str]:
    """What the keys of a task's inputs and of its results begin with."""
    return f"inputs/{tenant}/{task_id}/", f"results/{tenant}/{task_id}/"


@dataclass(frozen=True)
class StoredTask:
    """A task of which objects are stored.

    Attributes:
        newest: When the newest of them was written, by the clock of the store.
    """

    tenant: str
    task_id: str
    newest: datetime


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it.

    Attributes:
        key: Its whole key.
        size_bytes: Its length.
        etag: What changes with its content, quotes included.
    """

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class ObjectFacts:
    """What S3 tells of an object without its bytes."""

    size_bytes: int
    media_type: str


@dataclass(frozen=True)
class PresignedForm:
    """A POST that stores one object without credentials: the fields come before the part ``file``."""

    url: str
    fields: dict[str, str]


class BlobStore:
    """One bucket. Thread-safe: boto3 clients are.

    Every failure is ``BlobsUnavailable``, but for an object that isn't there, which is ``InputUnavailable``. So is one
    in another bucket that may not be read; our own bucket, missing or closed to us, is ``BlobsUnavailable``.
    """

    def __init__(self, settings: FleetSettings) -> None:
        access, secret = settings.s3_access_key_id, settings.s3_secret_access_key
        self.bucket = settings.s3_bucket
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            region_name=settings.s3_region,
            aws_access_key_id=access.get_secret_value() if access else None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=2,
                read_timeout=10,
                retries={"mode": "standard", "max_attempts": 3},
                max_pool_connections=64,
                s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
            ),
        )

    def put(self, key: str, data: bytes | BinaryIO, content_type: str) -> None:
        """Store bytes, or a file from where it stands; a file is read in pieces."""
        with self._errors(frozenset()):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=content_type)

    def put_file(self, key: str, data: IO[bytes], content_type: str) -> None:
        """Store what ``data`` holds from where it stands to its end, without reading it whole."""
        with self._errors(frozenset()):
            self._client.upload_fileobj(data, self.bucket, key, ExtraArgs={"ContentType": content_type})

    def get(self, key: str) -> bytes:
        """Read an object of our own bucket."""
        with self._errors():
            return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def facts(self, key: str) -> ObjectFacts:
        """What S3 tells of an object of our own bucket."""
        with self._errors():
            reply = self._client.head_object(Bucket=self.bucket, Key=key)
        return ObjectFacts(reply["ContentLength"], reply.get("ContentType", "application/octet-stream"))

    def copy(self, source_key: str, key: str) -> None:
        """Copy an object of our own bucket inside S3."""
        with self._errors():
            self._client.copy_object(Bucket=self.bucket, Key=key, CopySource={"Bucket": self.bucket, "Key": source_key})

    def presigned_put(self, key: str, size_bytes: int, content_type: str, *, expires_s: int) -> str:
        """A URL that stores exactly ``size_bytes`` of ``content_type`` by PUT: both headers are signed."""
        params = {"Bucket": self.bucket, "Key": key, "ContentLength": size_bytes, "ContentType": content_type}
        with self._errors():
            return self._client.generate_presigned_url("put_object", Params=params, ExpiresIn=expires_s)

    def presigned_post(self, key: str, max_bytes: int, content_type: str, *, expires_s: int) -> PresignedForm:
        """A form that stores 1 to ``max_bytes`` of ``content_type`` by POST."""
        with self._errors():
            form = self._client.generate_presigned_post(
                self.bucket,
                key,
                Fields={"Content-Type": content_type},
                Conditions=[["content-length-range", 1, max_bytes], {"Content-Type": content_type}],
                ExpiresIn=expires_s,
            )
        return PresignedForm(form["url"], form["fields"])

    def presigned_get(self, bucket: str, key: str, *, expires_s: int = 300, content_type: str | None = None) -> str:
        """A URL that reads one object, without credentials, for ``expires_s`` seconds."""
        params = {"Bucket": bucket, "Key": key}
        if content_type:
            params["ResponseContentType"] = content_type
        with self._errors():
            return self._client.generate_presigned_url("get_object", Params=params, ExpiresIn=expires_s)

    def list_tasks(self, room: str) -> Iterator[StoredTask]:
        """What ``inputs`` or ``results`` hold, task by task, as the keys' order gives them.

        Args:
            room: "inputs", "results", "incoming" (uploads instead of tasks), "files" (files) or "cache" (digests of
                questions).
        """
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{room}/")
            current: StoredTask | None = None
            for page in pages:
                for entry in page.get("Contents", []):
                    _, tenant, task_id, *_rest = f"{entry['Key']}///".split("/")
                    if current is None or (current.tenant, current.task_id) != (tenant, task_id):
                        if current is not None:
                            yield current
                        current = StoredTask(tenant, task_id, entry["LastModified"])
                    current = StoredTask(tenant, task_id, max(current.newest, entry["LastModified"]))
            if current is not None:
                yield current

    def list_objects(self, bucket: str, prefix: str) -> list[StoredObject]:
        """All objects of any bucket whose keys begin with ``prefix``."""
        with self._errors(_ABSENT):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [
                StoredObject(entry["Key"], entry["Size"], entry["ETag"])
                for page in pages
                for entry in page.get("Contents", [])
            ]

    def stream(self, bucket: str, stored: StoredObject, *, start: int = 0) -> Iterator[bytes]:
        """Read an object of any bucket from byte ``start`` on, in pieces; fails if it has changed since the listing."""
        with self._errors(_ABSENT):
            reply = self._client.get_object(Bucket=bucket, Key=stored.key, Range=f"bytes={start}-", IfMatch=stored.etag)
            yield from reply["Body"].iter_chunks(1 << 20)

    def chunks(self, key: str, *, start: int = 0) -> Generator[bytes]:
        """Read an object of our own bucket from byte ``start`` on, in pieces of at most 1 MiB.

        The object has to be longer than ``start``. Whoever stops early closes the iterator.
        """
        with self._errors():
            body = self._client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={start}-")["Body"]
            with closing(body):
                yield from body.iter_chunks(1 << 20)

    def delete_prefix(self, prefix: str) -> int:
        """Delete every object under ``prefix``; reply how many."""
        deleted = 0
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                keys: list[ObjectIdentifierTypeDef] = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
                if keys:
                    reply = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
                    if reply.get("Errors"):
                        raise BlobsUnavailable("the object store kept what it was to delete; try again later")
                    deleted += len(keys)
        return deleted

    def check(self) -> None:
        """Raise ``BlobsUnavailable`` unless the bucket answers."""
        with self._errors():
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as exc:
                raise BlobsUnavailable("the bucket doesn't answer") from exc

    def location(self, key: str) -> str:
        """The object's ``s3://`` address."""
        return f"s3://{self.bucket}/{key}"

    @contextmanager
    def _errors(self, absent: frozenset[str] = _MISSING) -> Iterator[None]:
        """Raise our errors for the driver's; ``absent`` are the answers that mean ``InputUnavailable``."""
        try:
            yield
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") in absent:
                raise InputUnavailable("the object isn't there or may not be read") from exc
            raise BlobsUnavailable("the object store refused; try again later") from exc
        except (BotoCoreError, Boto3Error) as exc:
            raise BlobsUnavailable("the object store can't be reached; try again later") from exc
