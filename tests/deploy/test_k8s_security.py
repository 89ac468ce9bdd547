"""What pods may do: nothing that they need not."""

from __future__ import annotations

import re

import pytest

from tests.deploy.manifests import (
    K8S,
    OVERLAYS,
    ROUTER,
    Object,
    Pod,
    needs_kubectl,
    objects,
    of_kind,
    pods,
    rendered,
    servers,
)
from tests.deploy.names import DEPLOY
from tests.deploy.references import matches

pytestmark = needs_kubectl
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
RDMA = "qwen3-235b-multinode"
IMAGE = DEPLOY.parent / "Dockerfile"


@each_overlay
def test_nobody_is_root_and_nothing_is_writable_but_volumes(overlay: str) -> None:
    for pod in pods(objects(overlay)):
        security, container = pod.spec["securityContext"], pod.container["securityContext"]
        assert security["runAsNonRoot"]
        assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {10001}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["allowPrivilegeEscalation"] is False
        assert container["readOnlyRootFilesystem"] is True
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)


@each_overlay
def test_capabilities_are_dropped_and_one_comes_back_with_rdma(overlay: str) -> None:
    for pod in pods(objects(overlay)):
        capabilities = pod.container["securityContext"]["capabilities"]
        assert capabilities["drop"] == ["ALL"]
        assert capabilities.get("add", []) == (["IPC_LOCK"] if overlay == RDMA else [])
        assert any(name.startswith("rdma/") for name in pod.container["resources"]["limits"]) == (
            overlay == RDMA
        )


@each_overlay
def test_a_servers_writable_places_are_the_images(overlay: str) -> None:
    for pod in pods(objects(overlay)):
        if pod.container["name"] != ROUTER:
            paths = {
                mount["mountPath"]
                for mount in pod.container["volumeMounts"]
                if not mount.get("readOnly")
            }
            assert (
                {"/cache", "/tmp", "/dev/shm"}
                <= paths
                <= {"/cache", "/cache/huggingface", "/tmp", "/dev/shm"}
            )


@each_overlay
def test_only_the_router_may_ask_the_api_server(overlay: str) -> None:
    found = objects(overlay)
    for pod in pods(found):
        assert pod.spec["automountServiceAccountToken"] is (pod.container["name"] == ROUTER)
    for role in of_kind(found, "Role"):
        assert role["rules"] == [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
        ]
    assert not of_kind(found, "ClusterRole")


@each_overlay
def test_every_pod_is_under_a_policy_for_both_directions(overlay: str) -> None:
    found = objects(overlay)
    for pod in pods(found):
        over = [
            policy
            for policy in of_kind(found, "NetworkPolicy")
            if matches(pod.labels, policy["spec"]["podSelector"]["matchLabels"])
        ]
        assert over
        assert all(set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"} for policy in over)
        for policy in over:
            assert all(rule.get("from") for rule in policy["spec"]["ingress"]), "open to everyone"


@each_overlay
def test_no_secret_is_written_down(overlay: str) -> None:
    assert not of_kind(objects(overlay), "Secret")
    assert "hf_" not in rendered(overlay)


@each_overlay
def test_the_token_is_optional(overlay: str) -> None:
    for pod in servers(objects(overlay)):
        assert secrets_of(pod)["huggingface-token"]["optional"] is True


@each_overlay
def test_every_server_has_an_admin_key_as_a_file_and_does_not_start_without(overlay: str) -> None:
    for pod in servers(objects(overlay)):
        (variable,) = (each for each in pod.container["env"] if each["name"].startswith("OEA_"))
        volume = secrets_of(pod)["admin-key"]
        assert volume["secretName"] == "oea-admin-key"
        assert "optional" not in volume
        (mount,) = (each for each in pod.container["volumeMounts"] if each["name"] == "admin-key")
        assert mount["readOnly"] is True
        (item,) = volume["items"]
        assert variable == {
            "name": "OEA_ADMIN_KEY_FILE",
            "value": f"{mount['mountPath']}/{item['path']}",
        }
        assert volume["defaultMode"] == 0o440, "root and the pod's own group"


@each_overlay
def test_no_key_is_in_arguments_or_variables(overlay: str) -> None:
    for pod in pods(objects(overlay)):
        assert not [word for word in pod.container["args"] if "key" in word]
        for variable in pod.container.get("env", ()):
            assert "secretKeyRef" not in variable.get("valueFrom", {}), variable["name"]


def secrets_of(pod: Pod) -> dict[str, Object]:
    """By the names of their volumes."""
    return {
        volume["name"]: volume["secret"] for volume in pod.spec["volumes"] if "secret" in volume
    }


SERVERS_ALONE = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "oea-server"}}}


@each_overlay
def test_others_reach_one_port_by_the_labels_of_their_pods(overlay: str) -> None:
    """A namespace alone is everything that runs in it; PyTorch's store and NCCL are for the ranks
    of a group."""
    for policy in of_kind(objects(overlay), "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            if rule["from"] == [SERVERS_ALONE]:
                assert policy["metadata"]["name"] == "oea-ranks"
                continue
            assert [port["port"] for port in rule["ports"]] in (["http"], ["metrics"])
            for peer in rule["from"]:
                assert peer["podSelector"]["matchLabels"].keys() & {
                    "oea-client",
                    "app.kubernetes.io/name",
                }
                assert "ipBlock" not in peer


@each_overlay
def test_what_scrapes_is_prometheus_and_not_its_namespace(overlay: str) -> None:
    for policy in of_kind(objects(overlay), "NetworkPolicy"):
        peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
        monitoring = [peer for peer in peers if "monitoring" in str(peer.get("namespaceSelector"))]
        assert len(monitoring) == (policy["metadata"]["name"] != "oea-ranks")
        for peer in monitoring:
            assert peer["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}


def test_replicas_do_not_reach_each_others_ranks() -> None:
    """Servers behind the router have the same labels, and nothing to say to one another."""
    for overlay in OVERLAYS:
        names = {
            policy["metadata"]["name"] for policy in of_kind(objects(overlay), "NetworkPolicy")
        }
        assert ("oea-ranks" in names) == bool(of_kind(objects(overlay), "LeaderWorkerSet"))


def test_what_an_operator_edits_is_marked() -> None:
    marked = [path for path in K8S.rglob("*.yaml") if "# edit:" in path.read_text()]
    names = {str(path.relative_to(K8S)) for path in marked}
    for overlay in OVERLAYS:
        if overlay != "qwen3-30b-router":
            assert f"overlays/{overlay}/kustomization.yaml" in names


@pytest.mark.skipif(not IMAGE.exists(), reason="needs the Dockerfile")
def test_the_image_is_made_for_these_pods() -> None:
    text = IMAGE.read_text()
    server = servers(objects("qwen3-30b-1gpu"))[0]
    security = server.spec["securityContext"]
    (weights,) = (mount for mount in server.container["volumeMounts"] if mount["name"] == "weights")
    images = [stage for stage in re.split(r"^FROM ", text, flags=re.M) if "ENTRYPOINT" in stage]
    users = {re.findall(r"^USER (\S+)", stage, re.M)[-1] for stage in images}
    assert users == {f"{security['runAsUser']}:{security['runAsGroup']}"}
    assert set(re.findall(r"^EXPOSE (\S+)", text, re.M)) == {
        str(server.container["ports"][0]["containerPort"])
    }
    assert set(re.findall(r"\bHF_HOME=(\S+)", text)) == {weights["mountPath"]}
    assert all(
        path.startswith("/cache") for path in re.findall(r"\w+_(?:DIR|HOME|BASE|PATH)=(/\S+)", text)
    )
    assert "PROMETHEUS_MULTIPROC_DIR" not in text
