"""What memr1 uses of a Weaviate server, over real HTTP and gRPC sockets: schema, tenants, batches, reading, deleting.

It is kept honest by the bank's contract, which runs on it and on a real server alike. Left out: searching.
"""

import json
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import grpc
from weaviate.proto.v1 import (
    base_pb2,
    batch_delete_pb2,
    batch_pb2,
    properties_pb2,
    search_get_pb2,
    tenants_pb2,
    weaviate_pb2_grpc,
)

from memr1.bank.weaviate_address import Endpoint, WeaviateAddress

VERSION = "1.40.0"
MAX_MESSAGE_BYTES = 104858000  # a server's default
Refuse = Callable[[dict[str, Any]], str]  # an object's properties → why it is refused, or ""
Rows = dict[str, tuple[dict[str, Any], bytes]]  # by id: properties, vector


class WeaviateDouble(weaviate_pb2_grpc.WeaviateServicer):
    """A server with its data. `stop` and `start` are a crash and a restart: the data stay."""

    def __init__(self, api_key: str = "") -> None:
        self.api_key = api_key
        self.schema: dict[str, dict[str, Any]] = {}
        self.tenants: dict[str, dict[str, Rows]] = {}  # by collection, then by tenant
        self.refuse: Refuse = lambda properties: ""
        self.num_calls = 0  # over gRPC
        self._http_port = self._grpc_port = 0
        self.start()

    @property
    def address(self) -> WeaviateAddress:
        http, grpc_port = (Endpoint("127.0.0.1", port, False) for port in (self._http_port, self._grpc_port))
        return WeaviateAddress(http, grpc_port, self.api_key)

    def start(self) -> None:
        """Listen, at the same ports as before."""
        self._grpc = grpc.server(
            ThreadPoolExecutor(4),
            interceptors=[_AsksForKey(self.api_key)],
            options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)],
        )
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(self, self._grpc)
        self._grpc_port = self._grpc.add_insecure_port(f"127.0.0.1:{self._grpc_port}")
        self._grpc.start()
        double = self
        handler = type("Handler", (_Handler,), {"double": double})
        self._http = ThreadingHTTPServer(("127.0.0.1", self._http_port), handler)
        self._http_port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Answer no more; calls that are under way are cut off."""
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()

    def rows(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Every object of every collection and tenant."""
        for tenants in self.tenants.values():
            for rows in tenants.values():
                yield from rows.values()

    def BatchObjects(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.num_calls += 1
        reply = batch_pb2.BatchObjectsReply()
        for place, item in enumerate(request.objects):
            properties = _read_properties(item.properties)
            problem = self._find_problem(item) or self.refuse(properties)
            if problem:
                reply.errors.append(batch_pb2.BatchObjectsReply.BatchError(index=place, error=problem))
            else:
                vector = item.vector_bytes or item.vectors[0].vector_bytes
                self.tenants[item.collection].setdefault(item.tenant, {})[str(UUID(item.uuid))] = (properties, vector)
        return reply

    def _find_problem(self, item: Any) -> str:
        if item.collection not in self.schema:
            return f"class {item.collection} not found in schema"
        known = {each["name"] for each in self.schema[item.collection]["properties"]}
        unknown = set(_read_properties(item.properties)) - known
        return f"unknown properties {sorted(unknown)}" if unknown else "" if item.tenant else "tenant is missing"

    def Search(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.num_calls += 1
        rows = self.tenants.get(request.collection, {}).get(request.tenant)
        if rows is None:
            context.abort(grpc.StatusCode.UNKNOWN, f'tenant not found: "{request.tenant}"')
        wanted = list(request.properties.non_ref_properties)
        with_vector = request.metadata.vector or len(request.metadata.vectors) > 0
        ids = sorted(key for key in rows if key > request.after)[: request.limit]
        return search_get_pb2.SearchReply(results=[_build_result(key, *rows[key], wanted, with_vector) for key in ids])

    def BatchDelete(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.num_calls += 1
        rows = self.tenants.get(request.collection, {}).get(request.tenant)
        if rows is None:
            context.abort(grpc.StatusCode.UNKNOWN, f'tenant not found: "{request.tenant}"')
        assert request.filters.operator == base_pb2.Filters.OPERATOR_CONTAINS_ANY, request.filters
        assert request.filters.target.property == "_id", request.filters
        found = [key for key in request.filters.value_text_array.values if key in rows]
        for key in found:
            del rows[key]
        return batch_delete_pb2.BatchDeleteReply(matches=len(found), successful=len(found), failed=0)

    def TenantsGet(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.num_calls += 1
        hot = tenants_pb2.TENANT_ACTIVITY_STATUS_HOT
        names = self.tenants.get(request.collection, {})
        return tenants_pb2.TenantsGetReply(
            tenants=[tenants_pb2.Tenant(name=name, activity_status=hot) for name in sorted(names)]
        )


@contextmanager
def running_double(api_key: str = "") -> Iterator[WeaviateDouble]:
    """A double that listens while inside."""
    double = WeaviateDouble(api_key)
    try:
        yield double
    finally:
        double.stop()


class _Handler(BaseHTTPRequestHandler):
    double: WeaviateDouble
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.removeprefix("/v1")
        if path == "/.well-known/ready":
            self._answer(200, {})
        elif self.double.api_key and self.headers.get("Authorization") != f"Bearer {self.double.api_key}":
            self._answer(401, {"error": [{"message": "anonymous access not enabled"}]})
        elif path == "/meta":
            self._answer(
                200, {"version": VERSION, "hostname": "", "modules": {}, "grpcMaxMessageSize": MAX_MESSAGE_BYTES}
            )
        elif path.startswith("/schema/") and path.removeprefix("/schema/") in self.double.schema:
            self._answer(200, self.double.schema[path.removeprefix("/schema/")])
        else:
            self._answer(404, {"error": [{"message": "not found"}]})

    def do_POST(self) -> None:
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/schema", self.path
        if posted["class"] in self.double.schema:
            return self._answer(422, {"error": [{"message": f"class name {posted['class']} already exists"}]})
        self.double.schema[posted["class"]] = _with_defaults(posted)
        self.double.tenants[posted["class"]] = {}
        return self._answer(200, self.double.schema[posted["class"]])

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _AsksForKey(grpc.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")
        if not self._api_key or given == f"Bearer {self._api_key}":
            return continuation(details)

        def refuse(request: bytes, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthorized: invalid api key")

        return grpc.unary_unary_rpc_method_handler(refuse)


def _with_defaults(posted: dict[str, Any]) -> dict[str, Any]:
    """A collection as a server describes it: what was left out has its default."""
    of_property = {"indexFilterable": True, "indexSearchable": True, "indexRangeFilters": False, "tokenization": "word"}
    vectors = {
        name: {**item, "vectorIndexConfig": {"vectorCacheMaxObjects": 10**12, **item["vectorIndexConfig"]}}
        for name, item in posted.get("vectorConfig", {}).items()
    }
    return {
        "description": "",
        "vectorizer": "none",
        "shardingConfig": {},
        "moduleConfig": {},
        **posted,
        "vectorConfig": vectors,
        "properties": [{**of_property, **item} for item in posted.get("properties", [])],
    }


def _read_properties(sent: Any) -> dict[str, Any]:
    arrays = {item.prop_name: list(item.values) for item in sent.text_array_properties}
    return {**dict(sent.non_ref_properties), **arrays, **{name: [] for name in sent.empty_list_props}}


def _build_result(key: str, properties: dict[str, Any], vector: bytes, wanted: list[str], with_vector: bool) -> Any:
    fields = {name: _build_value(properties[name]) for name in wanted}
    metadata = search_get_pb2.MetadataResult(id=key, id_as_bytes=UUID(key).bytes)
    if with_vector:
        assert len(vector) % struct.calcsize("<f") == 0
        single = base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32
        metadata.vectors.append(base_pb2.Vectors(name="default", vector_bytes=vector, type=single))
    return search_get_pb2.SearchResult(
        metadata=metadata,
        properties=search_get_pb2.PropertiesResult(non_ref_props=properties_pb2.Properties(fields=fields)),
    )


def _build_value(value: Any) -> Any:
    if isinstance(value, list):
        texts = properties_pb2.TextValues(values=value)
        return properties_pb2.Value(list_value=properties_pb2.ListValue(text_values=texts))
    return properties_pb2.Value(text_value=value)
