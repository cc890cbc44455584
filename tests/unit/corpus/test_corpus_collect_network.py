"""How a service is asked, against a server on loopback that misbehaves; waits are counted, not waited for."""

import asyncio
import gzip
import json
from collections import Counter
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from xuebu.config import check_settings
from xuebu.corpus import politeness as module
from xuebu.corpus.mediawiki import AnswerError, MediaWiki
from xuebu.corpus.politeness import GaveUpError, PoliteClient, Politeness, Timing
from xuebu.errors import ConfigError, NetworkError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class FakeTime:
    """Time that passes only where somebody sleeps."""

    def __init__(self, chance=0.5):
        self.seconds, self.sleeps, self.chance = 0.0, [], chance

    async def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)

    def timing(self):
        return Timing(
            clock=lambda: self.seconds,
            sleep=self.sleep,
            now=lambda: NOON + timedelta(seconds=self.seconds),
            chance=lambda: self.chance,
        )


def http(body=b'{"ok": 1}', status="200 OK", **headers):
    """Bytes of an answer."""
    lines = {"Content-Length": len(body), "Connection": "close", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return (
        f"HTTP/1.1 {status}\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode() + b"\r\n" + body
    )


OK = http()
LAGGED = http(json.dumps({"error": {"code": "maxlag", "info": "Waiting for a: 6 seconds lagged", "lag": 6}}).encode())


@asynccontextmanager
async def serving(handle):
    """Serve on loopback; give the address. At the end nothing is left open."""
    tasks = []

    async def serve(reader, writer):
        tasks.append(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*tasks)
        await server.wait_closed()


def ask(answers, *, chance=0.5, path="/w/api.php", work=None, **settings):
    """Serve scripted answers over a real socket; return (result or error, client, time, request heads)."""
    time, heads = FakeTime(chance), []
    script = iter(answers)

    async def handle(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if (answer := next(script)) is not None:
            writer.write(answer)
            await writer.drain()

    async def main():
        politeness = Politeness(contact="me@example.org", **settings)
        async with (
            serving(handle) as url,
            PoliteClient(politeness, timing=time.timing(), transport=httpx.AsyncHTTPTransport(verify=False)) as client,
        ):
            try:
                result = await (work(client, url + path) if work else client.get_json(url + path, {"q": "学"}))
            except NetworkError as error:
                result = error
            return result, client

    result, client = asyncio.run(main())
    return result, client, time, heads


def test_says_who_asks_and_takes_gzip():
    packed = http(gzip.compress(b'{"ok": 2}'), Content_Encoding="gzip")
    result, client, _, (head,) = ask([packed])
    assert result == {"ok": 2}
    line = next(line for line in head.splitlines() if line.lower().startswith("user-agent:"))
    assert line.startswith("User-Agent: xuebu/") and "(me@example.org)" in line
    assert "accept-encoding: gzip" in head.lower()
    assert parse_qs(urlsplit(head.split()[1]).query) == {"q": ["学"]}
    assert client.traffic.requests == 1 and not client.traffic.retries


@pytest.mark.parametrize("chance", [0.0, 0.37, 0.999])
def test_backs_off_exponentially_with_jitter(chance):
    broken = http(b"", "503 Service Unavailable")
    result, client, time, _ = ask([broken] * 8 + [OK], chance=chance, max_attempts=9)
    assert result == {"ok": 1}
    expected = [min(60, 2**k) * (0.5 + 0.5 * chance) for k in range(8)]  # 1, 2, ... 32, 60, 60 without jitter
    assert time.sleeps == pytest.approx(expected)
    assert client.traffic.retries == Counter({"status 503": 8})


@pytest.mark.parametrize(
    ("answer", "reason", "least"),
    [
        (http(b"", "429 Too Many Requests", Retry_After="7"), "status 429", 7.0),
        (http(b"", "503 Busy", Retry_After="Thu, 01 Jan 2026 12:00:30 GMT"), "status 503", 30.0),
        (http(b"", "503 Busy", Retry_After="Thu, 01 Jan 2026 11:00:00 GMT"), "status 503", 0.75),
        (http(b"", "500 Oh", Retry_After="soon"), "status 500", 0.75),
        (LAGGED.replace(b"Connection", b"Retry-After: 5\r\nConnection"), "maxlag", 5.0),
        (LAGGED, "maxlag", 0.75),
        (http(b"{not json"), "not JSON", 0.75),
        (http(b"[" * 100_000), "not JSON", 0.75),
        (http(b"[1]"), "not a JSON object", 0.75),
        (http(b"\x1f\x8bgarbage", Content_Encoding="gzip"), "damaged compression", 0.75),
        (OK[:-3], "connection (RemoteProtocolError)", 0.75),
        (None, "connection (RemoteProtocolError)", 0.75),
        (b"not http at all\r\n\r\n", "connection (RemoteProtocolError)", 0.75),
    ],
)
def test_asks_again_after_what_may_pass(answer, reason, least):
    def busy(answer):
        return answer["error"]["code"] if "error" in answer else None

    result, client, time, _ = ask([answer, OK], work=lambda client, url: client.get_json(url, {}, busy=busy))
    assert result == {"ok": 1}
    assert client.traffic.retries == Counter({reason: 1})
    assert time.sleeps == pytest.approx([least])


def test_gives_up_after_so_many_attempts():
    error, client, _, heads = ask([None] * 3, max_attempts=3)
    assert isinstance(error, GaveUpError) and "3 attempts" in str(error) and "again" in str(error)
    assert len(heads) == client.traffic.requests == 3


def test_a_silent_server_is_a_timeout():
    async def work(client, url):
        async def mute(reader, writer):
            await reader.read()

        async with serving(mute) as silent:
            return await client.get_json(silent, {}, max_attempts=2)

    error, client, _, _ = ask([], work=work, timeout_seconds=0.05)
    assert isinstance(error, GaveUpError) and client.traffic.retries == Counter({"timeout": 1})


def test_a_dripping_server_is_a_timeout():
    async def work(client, url):
        async def drip(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not (reader.at_eof() or writer.is_closing()):  # each read succeeds in time, the whole never ends
                writer.write(b" ")
                await asyncio.sleep(0.01)

        async with serving(drip) as slow:
            return await client.get_json(slow, {}, max_attempts=1)

    error, _, _, _ = ask([], work=work, timeout_seconds=0.1)
    assert isinstance(error, GaveUpError) and "timeout" in str(error)


def test_a_wait_beyond_reason_stops():
    error, _, time, _ = ask([http(b"", "429 No", Retry_After="4000")])
    assert isinstance(error, NetworkError) and not isinstance(error, GaveUpError)
    assert "4,000 seconds" in str(error) and time.sleeps == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(b"Please respect our robot policy.", "403 Forbidden"), ["403", "robot policy"]),
        (http(b"<html><b>no such page</b>", "404 Not Found"), ["404 Not Found"]),
        (http(b"", "302 Found"), ["302"]),
    ],
)
def test_a_refusal_is_not_asked_again(answer, words):
    error, client, _, _ = ask([answer])
    assert isinstance(error, NetworkError) and client.traffic.requests == 1
    assert all(word in str(error) for word in words) and "<" not in str(error)


def test_redirects_are_followed_but_not_for_ever():
    moved = http(b"", "301 Moved Permanently", Location="/else?q=1")
    assert ask([moved, OK])[0] == {"ok": 1}
    error, *_ = ask([moved] * 9)
    assert isinstance(error, NetworkError) and "redirects" in str(error)


def test_an_endless_answer_is_cut(monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)
    bomb = http(gzip.compress(b"[" + b" " * 1_000_000 + b"]"), Content_Encoding="gzip")
    error, *_ = ask([bomb])
    assert isinstance(error, NetworkError) and "over" in str(error)


def in_parallel(count, *, service=lambda number: httpx.Response(200, json={"ok": 1}), took=0.0, **settings):
    """Send so many requests at once; return start times and the most that were under way."""
    time, starts, under_way = FakeTime(), [], [0, 0]

    async def handle(request):
        number = len(starts)
        starts.append(time.seconds)
        under_way[0] += 1
        under_way[1] = max(under_way)
        await asyncio.sleep(took)
        under_way[0] -= 1
        return service(number)

    async def main():
        politeness = Politeness(contact="https://example.org/me", **settings)
        async with PoliteClient(politeness, timing=time.timing(), transport=httpx.MockTransport(handle)) as client:
            await asyncio.gather(*(client.get_json("http://wiki/", {}) for _ in range(count)))

    asyncio.run(main())
    return starts, under_way[1]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_at_once_and_so_many_a_second(concurrency):
    starts, most = in_parallel(9, took=0.005, concurrency=concurrency, requests_per_second=4.0)
    assert most <= concurrency
    assert starts == pytest.approx([0.25 * k for k in range(9)])


def test_concurrency_is_used():
    assert in_parallel(9, took=0.02, concurrency=3, requests_per_second=100.0)[1] == 3


def test_when_one_is_told_to_wait_all_wait():
    def service(number):
        return httpx.Response(429, headers={"Retry-After": "20"}) if number == 0 else httpx.Response(200, json={})

    starts, _ = in_parallel(4, service=service, took=0.001, concurrency=2, requests_per_second=100.0)
    assert len(starts) == 5
    assert [start >= 20 for start in starts] == [False, False, True, True, True]


@pytest.mark.parametrize("contact", ["", "  ", "me", "学@例子", "a@b.org\r\nX: y"])
def test_a_contact_is_needed(contact):
    with pytest.raises(ConfigError, match="contact"):
        Politeness(contact=contact)


@pytest.mark.parametrize(
    "setting", [{"concurrency": 0}, {"concurrency": 9}, {"max_attempts": 0}, {"maxlag_seconds": 0}]
)
def test_settings_have_ranges(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        check_settings(Politeness(contact="a@b.org", **setting), where="command line")


@pytest.mark.parametrize(
    "url", ["zh.wikipedia.org/w/api.php", "ftp://x/api.php", "https://x/api.php?action=query", "http:///api.php"]
)
def test_address_of_the_api_is_checked(url):
    async def main():
        nobody = httpx.MockTransport(lambda request: httpx.Response(500))
        async with PoliteClient(Politeness(contact="a@b.org"), transport=nobody) as client:
            MediaWiki(client, url)

    with pytest.raises(ConfigError, match="api"):
        asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"query": {}},
        {"query": []},
        {"query": {"general": [], "rightsinfo": 3, "extensions": None}},
        {"error": "no table"},
        {"error": {"code": "readapidenied", "info": "You need read permission\nto use this module."}},
        {"continue": 3, "query": {"general": {}}},
    ],
)
def test_what_is_no_mediawiki_is_said_in_one_line(answer):
    body = http(json.dumps(answer).encode())
    error, *_ = ask([body], work=lambda client, url: MediaWiki(client, url).site())
    assert isinstance(error, NetworkError) and not isinstance(error, AnswerError) and "api.php" in str(error)


def test_errors_that_pass_are_waited_for_and_others_are_not():
    busy = http(json.dumps({"error": {"code": "cirrussearch-too-busy-error", "info": "busy"}}).encode())
    lasting = http(json.dumps({"error": {"code": "srsearch-disabled", "info": "off"}}).encode())
    good = http(json.dumps({"batchcomplete": True, "query": {"search": []}, "continue": {"sroffset": 10}}).encode())

    def work(client, url):
        return MediaWiki(client, url).ask({"list": "search"})

    result, client, *_ = ask([busy, LAGGED, good], work=work)
    assert result.query == {"search": []} and result.resume == {"sroffset": "10"}
    assert client.traffic.retries == Counter({"cirrussearch-too-busy-error": 1, "maxlag": 1})
    error, client, _, (head,) = ask([lasting], work=work, maxlag_seconds=9)
    assert isinstance(error, AnswerError) and error.code == "srsearch-disabled" and "maxlag=9" in head


def test_without_httpx_the_extra_is_named(monkeypatch):
    import sys

    from xuebu.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"xuebu\[collect\]"):
        PoliteClient(Politeness(contact="a@b.org"))
