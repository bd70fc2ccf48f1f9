"""Fixtures of the tests against a real API server.

What is missing is named; on a CI machine it is a failure, elsewhere a skip.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from integration.harness import eventually, open_sockets
from needs import missing

from .api import Namespace, connect
from .build import HOW, NotBuildableError, apiserver_path, find_etcd
from .controlplane import ControlPlane, running_control_plane
from .gate import Gate, running_gate
from .kinds import gateway_kind, teach


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on uvloop, as in production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def etcd() -> Path:
    """Return the path of etcd."""
    try:
        return find_etcd()
    except NotBuildableError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def kube_apiserver() -> Path:
    """Return the path of kube-apiserver. It is not built here: that takes longer than any test may."""
    try:
        binary = apiserver_path()
    except NotBuildableError as error:
        missing(str(error))
    return binary if binary.exists() else missing(f"kube-apiserver, which is built by: {HOW}")


@pytest.fixture(scope="session")
def control_plane(etcd: Path, kube_apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Yield the control plane that all tests share; a test that stops its API server starts it again."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane"), etcd, kube_apiserver) as plane:
        yield plane


@pytest.fixture
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Yield the control plane, running; should a test leave it stopped, the next one gets it running all the same."""
    yield control_plane
    if not control_plane.apiserver.running:
        control_plane.start()


@pytest.fixture
async def namespace(
    plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Namespace]:
    """Yield a namespace of the test's own. It is never deleted, since that takes a controller; the data are."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50] + f"-{secrets.token_hex(4)}"
    before = open_sockets()
    async with connect(plane) as api:
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        yield Namespace(plane, api, name, tmp_path, monkeypatch)
    # TLS takes a round trip to end, for which nobody waits but us; what is left then is a leak.
    await eventually(lambda: open_sockets() <= before, "every connection is closed")


@pytest.fixture
async def gate(plane: ControlPlane) -> AsyncIterator[Gate]:
    """Yield a gate to the API server."""
    async with running_gate(plane.port) as gate:
        yield gate


@pytest.fixture
async def gateway_api(namespace: Namespace) -> None:
    """Teach the API server HTTPRoute and Gateway, which Kubernetes does not bring."""
    try:
        definitions = [gateway_kind(plural) for plural in ("httproutes", "gateways")]
    except NotBuildableError as error:
        missing(str(error))
    for definition in definitions:
        await teach(namespace.api, definition)
