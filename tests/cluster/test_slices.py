"""What happens to the EndpointSlices of a Service is what happens to the proxy's backends, by a real API server."""

import pytest

from stickyproxy.core.backends import Phase
from stickyproxy.core.endpoint_slices import ServiceRef

from .api import Endpoint, Namespace
from .follow import Followed, following

READY, PAUSED, DRAINING = Phase.READY, Phase.PAUSED, Phase.DRAINING

ONE = Endpoint("10.1.0.1", "one")
TWO = Endpoint("10.1.0.2", "two")
THREE = Endpoint("10.1.0.3", "three")


async def test_slices_that_are_created_changed_and_deleted_are_followed(namespace: Namespace) -> None:
    """From nothing to two slices and back to one, each step in force as a whole."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until_phases(one=READY)
        assert followed.addresses == {"one": "10.1.0.1:8080"}

        await namespace.change_slice("app-1", [ONE, TWO])
        await followed.until_phases(one=READY, two=READY)

        await namespace.make_slice("app-2", [THREE])
        await followed.until_phases(one=READY, two=READY, three=READY)

        await namespace.delete_slice("app-1")
        await followed.until_phases(three=READY)

        assert all(followed.sets), "no empty set in between"
        assert [len(backends) for backends in followed.sets] == [1, 2, 3, 1], "no step is applied twice"


async def test_a_rollout_pauses_drains_and_removes(namespace: Namespace) -> None:
    """A pod begins unready, becomes ready, terminates while it serves, stops serving, and is gone."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    unready = Endpoint("10.1.0.1", "one", ready=False, serving=False)
    await namespace.make_slice("app-1", [unready, TWO])
    async with following(Followed(ServiceRef(namespace.name, "app"), connect)) as followed:
        await followed.until_phases(one=PAUSED, two=READY)

        await namespace.change_slice("app-1", [ONE, TWO])
        await followed.until_phases(one=READY, two=READY)

        leaving = Endpoint("10.1.0.1", "one", ready=False, serving=True, terminating=True)
        await namespace.change_slice("app-1", [leaving, TWO])
        await followed.until_phases(one=DRAINING, two=READY)

        await namespace.change_slice("app-1", [TWO])
        await followed.until_phases(two=READY)


async def test_an_endpoint_that_moves_between_slices_is_never_away(namespace: Namespace) -> None:
    """Kubernetes' controller rebalances slices: for a moment an endpoint is in both."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE, TWO])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until_phases(one=READY, two=READY)
        await namespace.make_slice("app-2", [TWO])
        await namespace.change_slice("app-1", [ONE])
        await namespace.make_slice("app-3", [THREE])
        await followed.until_phases(one=READY, two=READY, three=READY)
        assert all("two" in {backend.identity for backend in backends} for backends in followed.sets)


async def test_both_families_are_one_backend_for_each_pod(namespace: Namespace) -> None:
    """A dual-stack Service has slices for each family; a pod is one pod all the same."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("app-v6", [Endpoint("fd00::1", "one"), Endpoint("fd00::9", "six")], family="IPv6")
    await namespace.make_slice("app-v4", [ONE])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until_phases(one=READY, six=READY)
        assert followed.addresses == {"one": "10.1.0.1:8080", "six": "[fd00::9]:8080"}


async def test_a_service_without_selector_has_addresses_for_identities(namespace: Namespace) -> None:
    """Somebody writes its slices by hand: there is no pod and no `targetRef`."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("by-hand", [Endpoint("10.1.0.1"), Endpoint("10.1.0.2")])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until(lambda: followed.phases == {"10.1.0.1:8080": READY, "10.1.0.2:8080": READY})


@pytest.mark.parametrize("port", ["web", "9000"])
async def test_a_port_is_chosen_by_name_or_number(namespace: Namespace, port: str) -> None:
    """And a name may be another number in another slice."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE], web=9000, metrics=9100)
    async with following(Followed(ServiceRef("", "app", port), connect)) as followed:
        await followed.until_phases(one=READY)
        assert followed.addresses == {"one": "10.1.0.1:9000"}


async def test_other_services_and_namespaces_are_not_seen(namespace: Namespace) -> None:
    """Only slices with this Service's label count."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("other-1", [TWO], service="other")
    await namespace.make_slice("app-1", [ONE])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until_phases(one=READY)
        await namespace.change_slice("other-1", [THREE])
        await namespace.change_slice("app-1", [ONE, TWO])
        await followed.until_phases(one=READY, two=READY)
        assert len(followed.sets) == 2
