"""Autobahn's fuzzing client against an echo server, direct and through the real command, at the same time."""

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.command import command
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from .build import HERE, environment, python, root

GROUPS: Mapping[str, str] = {
    "1": "framing", "2": "pings and pongs", "3": "reserved bits", "4": "opcodes", "5": "fragmentation",
    "6": "UTF-8", "7": "closing", "9": "limits and performance", "10": "auto-fragmentation",
    "12": "compression", "13": "compression with other parameters",
}  # fmt: skip

QUICK = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
"""All but compression, whose cases send a thousand messages each and take minutes."""

LONGEST_MESSAGE_BYTES = 1 << 26

LIMIT_S = 1800.0


@dataclass(frozen=True)
class Verdict:
    """What Autobahn says of one case: of the behaviour, of the closing, and with which code the server closed."""

    behavior: str
    close: str
    code: int | None


ACCEPTABLE = ("OK", "NON-STRICT", "INFORMATIONAL")

OK = Verdict("OK", "OK", 1000)


async def _echo(connection: ServerConnection) -> None:
    try:
        while True:  # piece by piece, since a message may be of more fragments than recv() takes
            pieces = [piece async for piece in connection.recv_streaming()]
            await connection.send(type(pieces[0])().join(pieces))  # type: ignore[arg-type]
    except ConnectionClosed:
        return  # how it closed is what the case looks at


ROUNDS = 8
"""How often cases that differ are run, before they count as different."""


@dataclass(frozen=True)
class Result:
    """The verdicts of the first round, direct and through the proxy; cases that `vary`, and those that `differ`."""

    direct: dict[str, Verdict]
    through: dict[str, Verdict]
    vary: frozenset[str]
    differ: frozenset[str]


PAGE_PATH = (
    "/_nicegui_ws/socket.io/?client_id=0&next_message_id=0&implicit_handshake=true&document_id=0&tab_id=0"
    "&EIO=4&transport=websocket"
)


async def compare(cases: Sequence[str], *, park: bool = False) -> Result:
    """Run cases (`1.*`, `12.1.3`) direct and through the proxy; it must be built before.

    park: with `--park`, by the address of a NiceGUI page's socket, so that the tunnel is one that can be parked.

    Some verdicts are a race within the server: whether it still echoes a good message, when it has already seen the bad
    one behind it, makes OK or NON-STRICT, direct too. So what differs is run again, and counts as the same once both
    agree. What fails through the proxy and not direct differs for good.
    """
    direct, through = await run(cases, park=park)
    first = direct, through
    differ = {case for case in direct.keys() | through.keys() if direct.get(case) != through.get(case)}
    vary = frozenset(differ)
    lost = {case for case in differ if _fails(through.get(case)) and not _fails(direct.get(case))}
    for _ in range(ROUNDS - 1):
        if not differ - lost:
            break
        direct, through = await run(sorted(differ - lost), park=park)
        lost |= {case for case in differ if _fails(through.get(case, OK)) and not _fails(direct.get(case))}
        differ = lost | {case for case in differ if direct.get(case) != through.get(case)}
    return Result(*first, vary, frozenset(differ))


def _fails(verdict: Verdict | None) -> bool:
    return verdict is None or verdict.behavior not in ACCEPTABLE


async def run(cases: Sequence[str], *, park: bool) -> tuple[dict[str, Verdict], dict[str, Verdict]]:
    """Run cases once; give the verdicts direct and through the proxy."""
    deflate = ServerPerMessageDeflateFactory()
    async with serve(
        _echo, "127.0.0.1", 0, max_size=LONGEST_MESSAGE_BYTES, compression=None, extensions=[deflate],
        ping_interval=None,
    ) as server:  # fmt: skip
        port = next(iter(server.sockets)).getsockname()[1]
        async with command("--backend", f"127.0.0.1:{port}", *(("--park", "300") if park else ())) as proxy:
            path = PAGE_PATH if park else ""
            direct, through = await asyncio.gather(_client(port, cases), _client(proxy.listen.port, cases, path))
    return direct, through


async def _client(port: int, cases: Sequence[str], path: str = "") -> dict[str, Verdict]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        spec = {
            "outdir": str(work / "reports"), "servers": [{"agent": "x", "url": f"ws://127.0.0.1:{port}{path}"}],
            "cases": list(cases), "exclude-cases": [], "exclude-agent-cases": {},
        }  # fmt: skip
        (work / "spec.json").write_text(json.dumps(spec))
        client = await asyncio.create_subprocess_exec(
            str(python()), str(HERE / "wstest.py"), "-m", "fuzzingclient", "-s", str(work / "spec.json"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=work,
            env=environment(root() / "packages"),
        )  # fmt: skip
        try:
            async with asyncio.timeout(LIMIT_S):
                said, _ = await client.communicate()
        finally:
            if client.returncode is None:
                client.kill()
        assert client.returncode == 0, said[-2000:].decode()
        found = json.loads((work / "reports" / "index.json").read_text())["x"]
    return {
        case: Verdict(one["behavior"], one["behaviorClose"], one.get("remoteCloseCode")) for case, one in found.items()
    }
