"""Heads for the tests to break parsers with: good ones, tricky ones, and good ones with a few bytes changed."""

from hypothesis import strategies as st

GOOD_LINES = [
    b"Accept: text/html",
    b"accept:*/*",
    b"X-Empty:",
    b"X-Obs: caf\xe9\xff",
    b"X-Tabs: \t a \t b \t",
    b"!#$%&'*+-.^_`|~: x",
    b"User-Agent: Mozilla/5.0",
    b"User-Agent: kube-probe/1.30",
    b"Cookie: a=1; b=2",
    b"Cookie: stickyproxy=TOKEN; a=1",
    b'cookie: a=1;stickyproxy="TOKEN";b=2',
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: X-Named, close",
    b"Connection: Upgrade",
    b"Connection: ,",
    b"X-Named: 1",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"Expect: 100-continue",
    b"X-Forwarded-For: 6.6.6.6",
    b"x_forwarded_for: 6.6.6.6",
    b"X-Forwarded-Proto: https",
    b"X-Real-IP: 6.6.6.6",
    b"Forwarded: for=6.6.6.6",
    b"Sec-WebSocket-Version: 13",
    b"Transfer_Encoding: chunked",
    b"Content_Length: 7",
]

FRAMING_LINES = [
    b"Content-Length: 0",
    b"Content-Length: 3",
    b"content-length:\t03 ",
    b"Content-Length: 3, 3",
    b"Content-Length: +3",
    b"Content-Length: 0x3",
    b"Content-Length: 18446744073709551619",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:\tCHUNKED",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding",
    b" Transfer-Encoding: chunked",
    b"Transfer-Encoding:",
    b" chunked",
]

HOST_LINES = [
    b"Host: app.example",
    b"host:app.example:8080",
    b"HOST: [::1]:80",
    b"Host: other.example",
    b"Host:",
    b"Host: a b",
    b"Host: a@b",
]

METHODS = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"FOO",
    b"get",
]

TARGETS = [
    b"/",
    b"/a/b?c=d&e",
    b"//evil/",
    b"/a#b",
    b"*",
    b"http://app.example/a",
    b"http://app.example:8080?q",
    b"http://other.example/",
    b"http://u@app.example/",
    b"app.example:80",
    b"/\xe9",
    b"/%00%0d%0a",
    b'/"<>\\^`{|}',
    b"",
]

VERSIONS = [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 ", b""]

TRICKS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n ",
    b"\n\n",
    b"\0",
    b"\t",
    b" ",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b":",
    b",",
    b";",
    b"#",
]

LINES = st.one_of(
    st.sampled_from(GOOD_LINES),
    st.builds(
        lambda name, value: name + b": " + value,
        st.text("abcXYZ-", min_size=1, max_size=8).map(str.encode),
        st.text('aZ09 ,;="\t', max_size=8).map(lambda text: text.strip(" \t").encode()),
    ),
)


def mutations(data: bytes) -> st.SearchStrategy[bytes]:
    """Give the bytes with one to three tricks inserted, or bytes dropped, doubled or changed."""

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        changed = data
        for at, kind, trick in changes:
            at %= len(changed) + 1
            if kind == 0:
                changed = changed[:at] + trick + changed[at:]
            elif kind == 1:
                changed = changed[:at] + changed[at + 1 :]
            elif kind == 2:
                changed = changed[:at] + trick + changed[at + 1 :]
            else:
                changed = changed[:at] + changed[at : at + 1] + changed[at:]
        return changed

    change = st.tuples(st.integers(0, 2000), st.integers(0, 3), st.sampled_from(TRICKS))
    return st.lists(change, min_size=1, max_size=3).map(apply)


def whole(data: bytes) -> bytes:
    """Cut bytes to what the data plane takes for one head: empty lines, as before it, do not belong to it."""
    while data.startswith(b"\r\n"):
        data = data[2:]
    data += b"\r\n\r\n"
    return data[: data.find(b"\r\n\r\n") + 4]


@st.composite
def tidy_heads(draw: st.DrawFn) -> bytes:
    """Draw heads that most rules are kept in: one good Host, at most one good framing."""
    host = draw(st.sampled_from(HOST_LINES[:3]))
    lines = draw(st.lists(LINES, max_size=6))
    framing = draw(st.sampled_from([[], [], *([line] for line in FRAMING_LINES[:3] + FRAMING_LINES[7:9])]))
    lines = draw(st.permutations([host, *lines, *framing]))
    method = draw(st.sampled_from(METHODS[:8]))
    target = draw(
        st.sampled_from([b"/", b"/a/b?c=d&e", b"//evil/", b"http://" + host.partition(b":")[2].strip() + b"/x"])
    )
    version = draw(st.sampled_from(VERSIONS[:9]))
    return b"\r\n".join([b"%b %b %b" % (method, target, version), *lines, b"", b""])


@st.composite
def tricky_heads(draw: st.DrawFn) -> bytes:
    """Draw heads put together of parts of which many are wrong."""
    lines = draw(st.lists(st.one_of(LINES, st.sampled_from(FRAMING_LINES + HOST_LINES)), max_size=6))
    lines = draw(st.permutations([draw(st.sampled_from(HOST_LINES)), *lines]))
    start = b" ".join([draw(st.sampled_from(METHODS)), draw(st.sampled_from(TARGETS)), draw(st.sampled_from(VERSIONS))])
    return whole(b"\r\n".join([start, *lines, b"", b""]))


HEADS = st.one_of(tidy_heads(), tricky_heads(), tidy_heads().flatmap(mutations).map(whole))
