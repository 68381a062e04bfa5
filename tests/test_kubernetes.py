"""The example for Kubernetes: what it says agrees with KubeRay's schema, with the command line, and with itself."""

from __future__ import annotations

import tomllib

import jsonschema
import pytest
import yaml
from builders.markdown import ROOT

from colbert_core.cli.main import build_parser

pytestmark = pytest.mark.skipif(not (ROOT / "kuberay.yaml").is_file(), reason="only a clone has kuberay.yaml")

# What ray.io/v1 and Kubernetes say of the fields that are used; others are refused.
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
AMOUNTS = {"type": "object", "additionalProperties": {"type": "string", "pattern": "^[0-9]+(m|Mi|Gi)?$"}}


def of(required, **properties):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required.split()}


def listed(schema):
    return {"type": "array", "items": schema, "minItems": 1}


PROBE = of(
    "httpGet",
    httpGet=of("path port", path={"enum": ["/ready", "/health"]}, port=NAME),
    periodSeconds={"type": "integer"},
    initialDelaySeconds={"type": "integer"},
)
CONTAINER = of(
    "name image resources volumeMounts",
    name=NAME,
    image={"type": "string"},
    command=listed({"type": "string"}),
    ports=listed(of("name containerPort", name=NAME, containerPort={"type": "integer"})),
    env=listed(of("name value", name={"type": "string", "pattern": "^[A-Z_]+$"}, value={"type": "string"})),
    resources=of("requests limits", requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=listed(of("name mountPath", name=NAME, mountPath={"type": "string"}, readOnly={"type": "boolean"})),
    readinessProbe=PROBE,
    livenessProbe=PROBE,
)
VOLUME = of(
    "name",
    name=NAME,
    persistentVolumeClaim=of("claimName", claimName=NAME),
    secret=of("secretName", secretName=NAME),
    emptyDir={"type": "object"},
)
METADATA = of("", name=NAME, labels={"type": "object", "additionalProperties": {"type": "string"}})
TEMPLATE = of("spec", metadata=METADATA, spec=of("containers volumes", containers=listed(CONTAINER), volumes=listed(VOLUME)))
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}  # numbers as well
COUNT = {"type": "integer", "minimum": 0}
CLUSTER = of(
    "headGroupSpec workerGroupSpecs",
    rayVersion={"type": "string"},
    headGroupSpec=of("rayStartParams template", rayStartParams=PARAMETERS, template=TEMPLATE),
    workerGroupSpecs=listed(
        of(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=PARAMETERS,
            template=TEMPLATE,
        )
    ),
)
PORTS = listed(of("name port targetPort", name=NAME, port={"type": "integer"}, targetPort=NAME))
CLAIM = of("accessModes resources", accessModes={"const": ["ReadWriteMany"]}, resources=of("requests", requests=AMOUNTS))
SPECS = {
    ("ray.io/v1", "RayCluster"): CLUSTER,
    ("v1", "Service"): of("selector ports", selector={"type": "object"}, ports=PORTS),
    ("v1", "PersistentVolumeClaim"): CLAIM,
}


@pytest.fixture(scope="module")
def documents():
    return {each["kind"]: each for each in yaml.safe_load_all((ROOT / "kuberay.yaml").read_text(encoding="utf-8"))}


def templates(documents):
    spec = documents["RayCluster"]["spec"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


def test_every_document_agrees_with_its_schema(documents):
    assert set(documents) == {kind for _, kind in SPECS}
    for document in documents.values():
        spec = SPECS[document["apiVersion"], document["kind"]]
        strings = {"type": "string"}
        jsonschema.validate(document, of("metadata spec", apiVersion=strings, kind=strings, metadata=METADATA, spec=spec))


def test_a_field_that_is_misspelt_is_seen(documents):
    wrong = {**documents["RayCluster"]["spec"], "workerGroupSpec": []}
    with pytest.raises(jsonschema.ValidationError, match="workerGroupSpec"):
        jsonschema.validate(wrong, CLUSTER)


def test_the_command_is_understood_and_asks_for_a_token(documents):
    head = documents["RayCluster"]["spec"]["headGroupSpec"]["template"]
    (serve,) = (each for each in head["spec"]["containers"] if each["name"] == "serve")
    program, *arguments = serve["command"]
    options = build_parser().parse_args(arguments)
    assert (program, arguments[0], options.replicas) == ("colbert", "serve", 2)
    assert (options.host, options.port) == ("0.0.0.0", serve["ports"][0]["containerPort"])
    mounts = {each["mountPath"]: each["name"] for each in serve["volumeMounts"]}
    assert mounts[str(options.indexes[0].parent)] == "indexes"
    assert options.token_file.startswith("/run/secrets/colbert/")
    assert mounts["/run/secrets/colbert"] == "token"
    (service,) = documents["Service"]["spec"]["ports"]
    assert service["targetPort"] == serve["ports"][0]["name"]
    assert documents["Service"]["spec"]["selector"] == head["metadata"]["labels"]


def test_what_is_mounted_is_a_volume_of_the_pod_and_all_pods_see_the_indexes_at_one_place(documents):
    places = set()
    for template in templates(documents):
        volumes = {each["name"]: each for each in template["spec"]["volumes"]}
        for container in template["spec"]["containers"]:
            mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
            assert set(mounts) <= set(volumes)
            places.add(mounts["indexes"])
            named = {each["name"]: each["value"] for each in container["env"]}
            assert named["RAY_AUTH_MODE"] == "token"
            assert named["RAY_AUTH_TOKEN_PATH"].startswith(mounts["ray-token"])
        assert (
            volumes["indexes"]["persistentVolumeClaim"]["claimName"] == documents["PersistentVolumeClaim"]["metadata"]["name"]
        )
    assert len(places) == 1


def test_its_ray_is_the_one_that_this_was_tested_with(documents):
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert documents["RayCluster"]["spec"]["rayVersion"] == pinned["ray"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(each.startswith("ray") for each in extras["cluster"])
