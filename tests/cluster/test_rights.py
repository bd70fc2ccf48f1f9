"""What a proxy says when something is missing, and what it may do when nothing is."""

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from deploy.tools import NotThereError, kubectl
from integration.command import Command, command
from needs import missing

from stickyproxy.core.backends import Phase
from stickyproxy.core.endpoint_slices import ServiceRef

from .api import ApiError, Endpoint, Namespace, connect
from .follow import Followed, by_service_account, following
from .gate import Gate

ONE = Endpoint("10.1.0.1", "one", "app-one")
TWO = Endpoint("10.1.0.2", "two", "app-two")

SHELL_LIMIT_S = 60.0


@pytest.fixture(scope="session")
def kubectl_path() -> Path:
    """Return the path of kubectl."""
    try:
        return kubectl()
    except NotThereError as error:
        missing(str(error))


@asynccontextmanager
async def proxy(namespace: Namespace, kubeconfig: Path) -> AsyncIterator[Command]:
    """Run the real command for the Service `app`."""
    options = ("--kubernetes-service", f"{namespace.name}/app", "--log-level", "info")
    async with command(*options, environment={"KUBECONFIG": str(kubeconfig)}) as running:
        yield running


async def obey(namespace: Namespace, advice: str, kubectl: Path) -> None:
    """Type what the proxy says, as the administrator."""
    bin_folder = namespace.folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / "kubectl").symlink_to(kubectl)
    admin = namespace.plane.write_admin_kubeconfig(namespace.folder / "admin.kubeconfig")
    process = await asyncio.create_subprocess_exec(
        "sh", "-ec", advice,
        env={"PATH": f"{bin_folder}:/usr/bin:/bin", "KUBECONFIG": str(admin), "HOME": str(namespace.folder)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(SHELL_LIMIT_S):
        said, _ = await process.communicate()
    assert process.returncode == 0, f"{advice!r} failed: {said.decode()}"


def advice_in(text: str) -> str:
    """Return the command that a line of /readyz ends with."""
    line = next(line for line in text.splitlines() if line.startswith("discovery:"))
    return line[line.index("kubectl ") :]


async def test_missing_rights_are_named_and_the_command_that_is_named_mends_them(
    namespace: Namespace, kubectl_path: Path
) -> None:
    """Unready, with one line for a person; then ready without a restart."""
    await namespace.make_account(verbs=())
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    async with proxy(namespace, await namespace.write_kubeconfig()) as running:
        await running.says("may not read EndpointSlices")
        answer = await running.look("/readyz")
        text = answer.body.decode()
        assert answer.status == 503, text
        assert f"may not read EndpointSlices in namespace {namespace.name} (403)" in text
        metrics = (await running.look("/metrics")).body.decode()
        assert 'stickyproxy_discovery_problem{problem="may not read' in metrics
        assert "stickyproxy_discovery_healthy 0.0" in metrics

        advice = advice_in(text)
        await obey(namespace, advice, kubectl_path)
        await running.says("is followed")
        answer = await running.look("/readyz")
        assert answer.status == 200, answer.body
        assert "ready: 1 of 1 backends usable" in answer.body.decode()
        assert "stickyproxy_discovery_healthy 1.0" in (await running.look("/metrics")).body.decode()

    # The command gives what is needed and nothing more.
    async with connect(namespace.plane, token=await namespace.make_token()) as account:
        await account.call("GET", namespace.slices)
        for path in (f"{namespace.core}/pods", f"{namespace.core}/secrets", "/apis/discovery.k8s.io/v1/endpointslices"):
            with pytest.raises(ApiError) as caught:
                await account.call("GET", path)
            assert caught.value.status == 403, path
    assert shlex.split(advice)[0] == "kubectl"


async def test_a_missing_service_is_named_and_found_when_it_is_there(namespace: Namespace) -> None:
    """Unready with one line; then ready without a restart."""
    await namespace.make_account()
    async with proxy(namespace, await namespace.write_kubeconfig()) as running:
        await running.says("has no EndpointSlices")
        answer = await running.look("/readyz")
        text = answer.body.decode()
        assert answer.status == 503, text
        line = next(line for line in text.splitlines() if line.startswith("discovery:"))
        assert f"Service {namespace.name}/app" in line
        assert f"kubectl -n {namespace.name}" in line

        await namespace.make_service()
        await namespace.make_slice("app-1", [ONE, TWO])
        await running.says("is followed")
        answer = await running.look("/readyz")
        assert answer.status == 200, answer.body
        assert "ready: 2 of 2 backends usable" in answer.body.decode()


async def test_rights_that_are_taken_away_leave_the_backends(namespace: Namespace, gate: Gate) -> None:
    """A mistake in RBAC costs no session: the last good set stays, and the problem is said."""
    connect = await namespace.account_connect(port=gate.port)
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until(lambda: not followed.problem)
        await namespace.forbid("proxy")
        gate.shut()
        gate.open()  # RBAC is looked at when a request begins, and a watch lasts minutes
        await followed.until(lambda: followed.reason == "forbidden")
        assert followed.phases == {"one": Phase.READY}
        await namespace.allow("proxy")
        await followed.until(lambda: not followed.problem)
        await namespace.change_slice("app-1", [TWO])
        await followed.until_phases(two=Phase.READY)


async def test_a_rotated_token_is_taken_up_before_the_old_one_dies(namespace: Namespace, gate: Gate) -> None:
    """The kubelet replaces the file; some time later the API server no longer takes what was in it."""
    await namespace.make_account()
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    first = await namespace.make_token(secret="first")
    namespace.mount(first, port=gate.port)
    async with following(Followed(ServiceRef("", "app"), by_service_account(namespace.folder))) as followed:
        await followed.until(lambda: not followed.problem)
        namespace.mount(await namespace.make_token(secret="second"), port=gate.port)
        await namespace.api.call("DELETE", f"{namespace.core}/secrets/first")
        await refused(namespace, first)

        gate.shut()  # who sends the first one now is refused
        gate.open()
        await namespace.change_slice("app-1", [TWO])
        await followed.until_phases(two=Phase.READY)
        await namespace.change_slice("app-1", [ONE, TWO])
        await followed.until_phases(one=Phase.READY, two=Phase.READY)  # listed before, so this came by a watch
        assert not any("does not accept our credentials" in line for line in followed.lines)

        namespace.mount("not a token", port=gate.port)
        gate.shut()
        gate.open()
        await followed.until(lambda: followed.reason == "unauthorized")
        assert followed.phases == {"one": Phase.READY, "two": Phase.READY}

        namespace.mount(await namespace.make_token(), port=gate.port)
        await followed.until(lambda: not followed.problem)


async def refused(namespace: Namespace, token: str) -> None:
    """Wait until the API server refuses a token: it remembers for 10 s that one was good."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    async with asyncio.timeout(30):
        while True:
            found = await namespace.api.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
            if not found["status"].get("authenticated"):
                return
            await asyncio.sleep(0.2)  # it tells nobody when it forgets
