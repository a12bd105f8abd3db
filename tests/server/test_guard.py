"""Requests of strangers are refused."""

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import openapi_spec_validator
import pytest

from tests.support.server import CHANGING, Server, run_server

FACTS = "/api/gallery"


def status_of(server: Server, method: str = "GET", path: str = FACTS, **headers: str) -> int:
    """The status of an answer; underscores in the names of headers stand for dashes."""
    return server.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})[0]


def test_a_request_of_this_machine_is_answered(server: Server) -> None:
    port = urlsplit(server.url).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LocalHost:{port}"):
        assert status_of(server, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="same-origin") == 200
    _, headers, _ = server.request("GET", FACTS)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1.evil.example:PORT"},
        {"Host": "127.0.0.2:PORT"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://localhost:PORT"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_pages_of_strangers_are_refused(server: Server, headers: dict[str, str]) -> None:
    port = str(urlsplit(server.url).port)
    headers = {name: value.replace("PORT", port) for name, value in headers.items()}
    for method, path in (("GET", FACTS), ("POST", "/api/searches"), ("GET", "/api/openapi.json")):
        status, answer, content = server.request(method, path, headers={**CHANGING, **headers})
        assert status == 403
        assert "error" in json.loads(content)
        assert "default-src 'none'" in answer["Content-Security-Policy"]


def test_two_hosts_or_none_are_refused(server: Server) -> None:
    own = urlsplit(server.url).netloc
    for hosts in ((own, own), (own, "evil.example"), ()):
        connection = server.connect()
        connection.putrequest("GET", FACTS, skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status in (400, 403)
        connection.close()


def test_what_changes_something_needs_a_header(server: Server) -> None:
    for method in ("POST", "DELETE", "PUT", "OPTIONS"):
        assert status_of(server, method, "/api/searches") == 403
    status, headers, _ = server.request("OPTIONS", "/api/searches", headers=CHANGING)
    assert status == 405
    assert "Access-Control-Allow-Headers" not in headers


def test_what_the_socket_offers_is_not_offered_by_tcp(server: Server) -> None:
    for method, path in (("POST", "/find"), ("POST", "/shutdown"), ("GET", "/status"), ("POST", "/stop/1")):
        assert server.request(method, path)[0] == 404
    assert server.status.searches == 0


def test_a_token_is_needed_where_one_is_set(gallery: Path, model_set: Path) -> None:
    with run_server(gallery, model_set, "--token", "s3cret") as server:
        assert status_of(server) == 401
        assert status_of(server, Authorization="Bearer wrong") == 401
        assert status_of(server, Authorization="Basic s3cret") == 401
        assert status_of(server, Cookie="matir_token=wrong") == 401
        assert status_of(server, Cookie="other=s3cret") == 401
        assert status_of(server, Authorization="Bearer s3cret") == 200
        assert status_of(server, Cookie="a=b; matir_token=s3cret") == 200
        assert status_of(server, Authorization="Bearer s3cret", Host="evil.example") == 403


def test_the_description_is_valid_openapi(server: Server) -> None:
    description = server.get("/api/openapi.json")
    openapi_spec_validator.validate(description)
    assert description["openapi"].startswith("3.1")


def test_facts_are_those_of_the_gallery(server: Server) -> None:
    facts = server.get(FACTS)
    assert facts["path"] == str(server.gallery)
    assert facts["photos"] == 12
    assert facts["undated"] + sum(month["photos"] for month in facts["months"]) == 12
    assert "searchable" not in facts
    assert "judgeable" not in facts
    described = server.get("/api/openapi.json")["components"]["schemas"]["Gallery"]
    assert set(facts) <= set(described["properties"])
    assert set(described["required"]) <= set(facts)


def test_malformed_requests_end_with_an_answer(server: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.connect()
    connection.sock.sendall(b"NONSENSE\r\n\r\n")
    answer = http.client.HTTPResponse(connection.sock)
    answer.begin()
    assert answer.status == 400
    connection.close()
    assert status_of(server) == 200
