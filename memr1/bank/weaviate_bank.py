"""The service: a journal in the run's folder, and its entries and vectors in a Weaviate server. The only module that
imports weaviate.

The server holds a mirror (`memr1.bank.mirrored`): one collection, one tenant per scope, our own vectors, and object ids
that derive from scope and entry id, so that every write may be repeated. It is in line with the journal after every
change and every group of commits. A server that is lost is waited for, but never longer than `bank.wait_seconds`.

The asynchronous client is used because its calls can be bounded (`memr1.bank.connection`). Left alone, the client
repeats a query for 63 s, and a batch block around a dead server does not end.
"""

import asyncio
import atexit
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
import numpy as np
import weaviate
from weaviate.classes.config import Configure, ConsistencyLevel, DataType, Property, StopwordsPreset, Tokenization
from weaviate.classes.config import VectorDistances as Distance
from weaviate.classes.data import DataObject
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.classes.query import Filter
from weaviate.collections import CollectionAsync
from weaviate.embedded import GITHUB_RELEASE_DOWNLOAD_URL, EmbeddedOptions, EmbeddedV4
from weaviate.exceptions import (
    AuthenticationFailedError,
    InsufficientPermissionsError,
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateInsertManyAllFailedError,
)

from memr1.bank.connection import Connection
from memr1.bank.embedding import Embedder, Vectors
from memr1.bank.entry import MemoryEntry
from memr1.bank.mirrored import Key, MirroredStore, cut_into_calls, entry_digest
from memr1.bank.weaviate_address import Endpoint, WeaviateAddress
from memr1.bank.weaviate_names import object_id, read_identity, tenant_name
from memr1.config import WeaviateBank
from memr1.environment import find_home
from memr1.errors import BankError, BankUnavailable

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1  # of the collection's properties and of what they mean
ROWS_PER_CALL = 512
BYTES_PER_CALL = 16 * 2**20  # a server takes messages of 100 MiB, and a call has `bank.timeout_seconds`
ROWS_PER_PAGE = 1_000
REFUSED = (AuthenticationFailedError, InsufficientPermissionsError)

Client = weaviate.WeaviateAsyncClient
Collection = CollectionAsync[Any, Any]


class WeaviateStore(MirroredStore):
    """See `memr1.bank.bank.BankStore`."""

    def __init__(
        self,
        folder: Path,
        embedder: Embedder,
        options: WeaviateBank,
        address: WeaviateAddress | None,
        *,
        wait_seconds: float = 0.0,
    ) -> None:
        """`address` None starts the client's embedded server. A folder in use is waited for `wait_seconds`.

        Raises BankUnavailable for a server that does not answer or a folder that cannot be written, BankError for a
        damaged journal, a refused key, or a collection that is not this version's.
        """

        def open_mirror() -> WeaviateMirror:
            connection = build_connection(address or start_embedded(), options)
            return WeaviateMirror(connection, options, read_identity(folder), embedder)

        super().__init__(folder, embedder, open_mirror, rows_per_write=1, wait_seconds=wait_seconds)


class WeaviateMirror:
    """See `memr1.bank.mirrored.Mirror`."""

    def __init__(
        self, connection: Connection[Client], options: WeaviateBank, identity: str, embedder: Embedder
    ) -> None:
        """Wait for the server, make the collection or check it, and list the rows of this store."""
        self._connection, self._options, self._identity = connection, options, identity
        self._schema = {"memr1_schema": SCHEMA_VERSION, "embedder": embedder.name, "dimension": embedder.dimension}
        try:
            connection.wait()
            connection.call(self._prepare_collection)
            self._tenants = connection.call(self._list_tenants)
            self._digests = {key: value for tenant in self._tenants for key, value in self._read_digests(tenant)}
        except BankError:
            connection.close()
            raise

    def take_digests(self) -> dict[Key, str]:
        """(scope, id) → `entry_digest`, of every row that the server had when it was asked at the opening."""
        digests, self._digests = self._digests, {}
        return digests

    def vectors(self, scope: str) -> Mapping[str, Vectors]:
        """Text → vector, for the rows of a scope. A server that does not answer gives none: they are embedded again."""
        tenant = tenant_name(self._identity, scope)
        if tenant not in self._tenants:
            return {}
        try:
            rows = self._read(tenant, ["text"], include_vector=True)
        except BankError as error:
            log.warning("%s. Embedding scope %r again", error, scope)
            return {}
        return {row.properties["text"]: np.asarray(row.vector["default"], dtype=np.float32) for row in rows}

    def write(self, entries: Sequence[MemoryEntry], vectors: Vectors, stale: Sequence[Key]) -> None:
        """Write the rows, so many per call, over those that they replace; then delete the others that are stale.

        Raises BankUnavailable, or BankError that names every refused entry.
        """
        rows = [self._build_row(entry, vector) for entry, vector in zip(entries, vectors, strict=True)]
        sizes = [len(entry.text.encode()) for entry in entries]
        for call in cut_into_calls(sizes, ROWS_PER_CALL, BYTES_PER_CALL):
            chunk = rows[call]
            refusals = self._connection.call(lambda client, chunk=chunk: self._insert(client, chunk))  # type: ignore[misc]
            if refusals:
                raise BankError(f"Weaviate refused {len(refusals)} of {len(chunk)} rows: {'; '.join(refusals)}")
        self._remove(set(stale) - {(entry.scope, entry.id) for entry in entries})

    def wait(self) -> None:
        """Until the server is ready. Raises BankUnavailable `bank.wait_seconds` after it was lost."""
        self._connection.wait()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _remove(self, keys: Iterable[Key]) -> None:
        for scope, group in groupby(sorted(keys), key=lambda key: key[0]):
            tenant = tenant_name(self._identity, scope)
            ids = [object_id(tenant, entry_id) for _, entry_id in group]
            for start in range(0, len(ids) if tenant in self._tenants else 0, ROWS_PER_CALL):
                self._delete(tenant, ids[start : start + ROWS_PER_CALL])

    async def _prepare_collection(self, client: Client) -> None:
        name = self._options.collection
        if not await client.collections.exists(name):
            try:
                await self._create_collection(client)
            except UnexpectedStatusCodeError:
                if not await client.collections.exists(name):  # otherwise another process was faster
                    raise
        config = await client.collections.use(name).config.get(simple=True)
        if config.description != json.dumps(self._schema):
            raise BankError(
                f"collection {name} of the Weaviate server is {config.description or 'not of memr1'!r}, needed is "
                f"{json.dumps(self._schema)}: set bank.collection to another name, or delete the collection when no "
                "other memr1 uses it (a store writes itself again from its journal when it is opened)"
            )

    async def _create_collection(self, client: Client) -> None:
        log.info("creating the Weaviate collection %s", self._options.collection)
        await client.collections.create(
            self._options.collection,
            description=json.dumps(self._schema),
            properties=build_properties(),
            vector_config=Configure.Vectors.self_provided(
                vector_index_config=Configure.VectorIndex.flat(distance_metric=Distance.COSINE)
            ),
            inverted_index_config=Configure.inverted_index(stopwords_preset=StopwordsPreset.NONE),
            multi_tenancy_config=Configure.multi_tenancy(
                enabled=True, auto_tenant_creation=True, auto_tenant_activation=True
            ),
            replication_config=Configure.replication(factor=self._options.replication_factor),
        )

    async def _list_tenants(self, client: Client) -> set[str]:
        """Those of this store."""
        known = await client.collections.use(self._options.collection).tenants.get()
        return {name for name in known if name.startswith(f"{self._identity}-")}

    def _read_digests(self, tenant: str) -> Iterator[tuple[Key, str]]:
        for row in self._read(tenant, ["scope", "entry_id", "digest"]):
            yield (row.properties["scope"], row.properties["entry_id"]), row.properties["digest"]

    def _read(self, tenant: str, properties: list[str], *, include_vector: bool = False) -> list[Any]:
        """Every row of a tenant, page by page."""
        rows: list[Any] = []
        while True:
            after = rows[-1].uuid if rows else UUID(int=0)  # without it pages are not in the order of ids

            async def read_page(client: Client, after: UUID = after) -> list[Any]:
                found = await self._tenant(client, tenant).query.fetch_objects(
                    limit=ROWS_PER_PAGE, after=after, return_properties=properties, include_vector=include_vector
                )
                return found.objects

            page = self._connection.call(read_page)
            rows += page
            if len(page) < ROWS_PER_PAGE:
                return rows

    async def _insert(self, client: Client, rows: Sequence[tuple[str, MemoryEntry, Any]]) -> list[str]:
        """Write rows of any tenants at once; one line per row that the server refused."""
        by_tenant: dict[str, list[tuple[str, MemoryEntry, Any]]] = {}
        for row in rows:
            by_tenant.setdefault(row[0], []).append(row)
        found = await asyncio.gather(*(self._insert_into(client, *item) for item in by_tenant.items()))
        self._tenants |= by_tenant.keys()
        return [refusal for refusals in found for refusal in refusals]

    async def _insert_into(
        self, client: Client, tenant: str, rows: Sequence[tuple[str, MemoryEntry, Any]]
    ) -> list[str]:
        try:
            result = await self._tenant(client, tenant).data.insert_many([row for _, _, row in rows])
        except WeaviateInsertManyAllFailedError as error:
            return [f"entry {entry.id!r} of scope {entry.scope!r}: {error.message}" for _, entry, _ in rows]
        return [
            f"entry {rows[place][1].id!r} of scope {rows[place][1].scope!r}: {failure.message}"
            for place, failure in sorted(result.errors.items())
        ]

    def _delete(self, tenant: str, ids: Sequence[UUID]) -> None:
        async def delete(client: Client) -> int:
            done = await self._tenant(client, tenant).data.delete_many(where=Filter.by_id().contains_any(list(ids)))
            return done.failed

        failed = self._connection.call(delete)
        if failed:
            raise BankError(f"Weaviate kept {failed} of {len(ids)} rows of tenant {tenant}: see the server's log")

    def _tenant(self, client: Client, tenant: str) -> Collection:
        collection: Collection = client.collections.use(self._options.collection)
        return collection.with_tenant(tenant).with_consistency_level(ConsistencyLevel(self._options.consistency))

    def _build_row(self, entry: MemoryEntry, vector: Vectors) -> tuple[str, MemoryEntry, Any]:
        """The tenant, the entry, and what is sent of it."""
        tenant = tenant_name(self._identity, entry.scope)
        properties: dict[str, Any] = {
            "text": entry.text,
            "speaker": entry.speaker,
            "time": entry.time.isoformat(),
            "turn_ids": list(entry.turn_ids),
            "scope": entry.scope,
            "entry_id": entry.id,
            "digest": entry_digest(entry),
        }
        row: Any = DataObject(properties=properties, uuid=object_id(tenant, entry.id), vector=vector.tolist())
        return tenant, entry, row


def build_connection(address: WeaviateAddress, options: WeaviateBank) -> Connection[Client]:
    """The connection to a server; no call is made yet."""

    async def connect() -> Client:
        client = _build_client(address, options.timeout_seconds)
        try:
            await client.connect()
        except BaseException:  # also a call that ran out of time: an open channel would stay behind
            await client.close()
            raise
        return client

    def explain(error: Exception) -> BankError:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, REFUSED) or getattr(error, "status_code", 0) in (401, 403):
            return BankError(f"Weaviate at {address} refuses access: set $WEAVIATE_API_KEY to a valid key ({reason})")
        return BankUnavailable(f"Weaviate at {address} does not answer ({reason}): start it, or correct $WEAVIATE_URL.")

    return Connection(
        connect,
        (WeaviateBaseError, httpx.HTTPError, grpc.RpcError),
        explain,
        timeout_seconds=options.timeout_seconds,
        wait_seconds=options.wait_seconds,
    )


def _build_client(address: WeaviateAddress, seconds: float) -> Client:
    return weaviate.use_async_with_custom(
        http_host=address.http.host,
        http_port=address.http.port,
        http_secure=address.http.secure,
        grpc_host=address.grpc.host,
        grpc_port=address.grpc.port,
        grpc_secure=address.grpc.secure,
        auth_credentials=Auth.api_key(address.api_key) if address.api_key else None,
        additional_config=AdditionalConfig(timeout=Timeout(init=seconds, query=seconds, insert=seconds)),
        skip_init_checks=True,  # they would ask PyPI for the client's newest version
    )


def build_properties() -> list[Property]:
    """What an object holds besides its vector. `text` is for BM25, the next three for filters, the rest is ours."""
    field = Tokenization.FIELD
    return [
        _build_property("text", searchable=True, tokenization=Tokenization.WORD),
        _build_property("speaker", filterable=True, tokenization=field),
        _build_property("time", filterable=True, tokenization=field),  # ISO 8601; session times have no zone
        _build_property("turn_ids", DataType.TEXT_ARRAY, filterable=True, tokenization=field),
        *(_build_property(name) for name in ("scope", "entry_id", "digest")),
    ]


def _build_property(
    name: str,
    data_type: DataType = DataType.TEXT,
    *,
    filterable: bool = False,
    searchable: bool = False,
    tokenization: Tokenization | None = None,
) -> Property:
    return Property(
        name=name,
        data_type=data_type,
        index_filterable=filterable,
        index_searchable=searchable,
        tokenization=tokenization,
    )


@lru_cache(maxsize=1)
def start_embedded() -> WeaviateAddress:
    """The Weaviate client's own server, a child of this process; its data lie in $MEMR1_HOME/weaviate."""
    folder = find_home() / "weaviate"
    options = EmbeddedOptions(
        persistence_data_path=str(folder), additional_env_vars={"DISABLE_TELEMETRY": "true", "LOG_LEVEL": "error"}
    )
    try:
        server = EmbeddedV4(options)
        server.start()
    except (OSError, WeaviateBaseError) as error:  # a download that fails is an OSError
        raise BankUnavailable(
            f"the embedded Weaviate server {options.version} cannot be started: {error}. It is downloaded once from "
            f"{GITHUB_RELEASE_DOWNLOAD_URL} into {options.binary_path}: without internet start a server yourself and "
            "set $WEAVIATE_URL to its address"
        ) from error
    atexit.register(server.stop)
    host = options.hostname
    return WeaviateAddress(Endpoint(host, options.port, False), Endpoint(host, options.grpc_port, False))
