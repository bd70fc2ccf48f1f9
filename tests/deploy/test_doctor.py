"""`stickyproxy doctor` finds nothing in what the repository renders: the chart's variants before the example app."""

import pytest
import yaml
from click.testing import CliRunner

from stickyproxy.tools.doctor.command import doctor

from .tools import KUBERNETES, Manifest, chart, kustomize

APP = {"app.kubernetes.io/name": "nicegui-app"}

VARIANTS: list[dict[str, object]] = [
    {},
    {"ingress": {"enabled": True}, "gateway": {"enabled": True}},
    {"networkPolicy": {"appLabels": APP}, "secret": {"name": "own"}, "serviceAccount": {"name": "own"}},
    {"backends": {"dns": "nicegui-app-pods:8080"}, "autoscaling": {"enabled": False}},
    {"settings": {"page-token": True, "asset-cache": "64M"}},
]


def look(manifests: list[Manifest]) -> tuple[int, str]:
    """Run the command on manifests; give its exit code and what it said."""
    text = yaml.safe_dump_all(manifests)
    result = CliRunner().invoke(doctor, ["-n", "default", "--file", "-", "--fail-on", "warning"], input=text)
    return result.exit_code, result.output


@pytest.mark.parametrize("values", VARIANTS, ids=lambda values: "-".join(values) or "defaults")
def test_the_chart_comes_out_clean_before_the_example_app(programs: None, values: dict[str, object]) -> None:
    pods = yaml.safe_load((KUBERNETES / "overlays" / "dns" / "pods-service.yaml").read_text())
    code, said = look([*chart(values=values), *kustomize(KUBERNETES / "example-app"), pods])
    assert code == 0, said
    assert "proxy  Deployment default/stickyproxy -> Service" in said


def test_labels_that_are_not_the_apps_are_found(programs: None) -> None:
    """The stage itself: the chart's value for the NetworkPolicy must name the app's own labels."""
    values = {"networkPolicy": {"appLabels": {"app": "nicegui-app"}}}
    code, said = look([*chart(values=values), *kustomize(KUBERNETES / "example-app")])
    assert code == 1
    assert "policy-blocks-app" in said
