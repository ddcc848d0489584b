"""The deploy files: what they name exists, ports and probes fit the programs, the buffer's policy is the one we need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.settings import Settings
from web.cli.procfile import read_procfile
from web.metrics import GAUGES
from web.routes import OPERATIONS

ROOT = Path(__file__).parents[2]
PROGRAMS = ("web", "worker", "beat", "events")
PORTS = {"web": 8400, "events": 8401}
#: Read by the Procfile, by deploy/program.sh or by Python, not by models.settings.
OTHERS = {
    *re.findall(r"\$\{(\w+)", (ROOT / "Procfile").read_text()),
    "METRICS_DIR", "PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE",
}  # fmt: skip
KNOWN = {str(field.alias) for field in Settings.model_fields.values()} | OTHERS


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    return found


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text()))


def dockerfile() -> str:
    return re.sub(r"\\\n", " ", (ROOT / "deploy/Dockerfile").read_text())


def test_the_image_copies_what_exists_runs_as_nobody_and_asks_for_its_health() -> None:
    text = dockerfile()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", final, re.MULTILINE)
    assert "/healthz" in re.search(r"^HEALTHCHECK .*$", final, re.MULTILINE)[0]
    assert "--require-hashes" in text
    names = re.findall(r"(\w+)=", " ".join(re.findall(r"^ENV (.+)$", final, re.MULTILINE)))
    assert set(names) <= KNOWN
    assert "blotter" not in re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert not re.search(r"(?i)secret|password", text)


def test_the_image_holds_what_the_links_among_the_static_files_lead_to() -> None:
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(), re.MULTILINE)
        for source in sources.split()
    }
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    links = [path for path in (ROOT / "web" / "static").rglob("*") if path.is_symlink()]
    assert links
    for link in links:
        target = link.resolve().relative_to(ROOT)
        within = {str(target), *map(str, target.parents)}
        assert within & copied, f"{link} leads to {target}, which is not copied"
        assert within & sent, f"{link} leads to {target}, which is not sent to the builder"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_entry_point_becomes_what_the_procfile_says(program: str, tmp_path: Path) -> None:
    """A stand-in for Python is found first; it tells its arguments."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\necho "$PROMETHEUS_MULTIPROC_DIR" "$@"\n')
    stand_in.chmod(0o755)
    metrics = tmp_path / "metrics"
    (metrics / "old").mkdir(parents=True)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOST": "0.0.0.0", "METRICS_DIR": str(metrics)}
    done = subprocess.run(
        [ROOT / "deploy/program.sh", program], env=environ, capture_output=True, text=True, check=True
    )
    folder, *said = done.stdout.split(" ")
    line = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", read_procfile(ROOT / "Procfile")[program][-1])
    expected = line.partition(" python ")[2].replace("--host 127.0.0.1", "--host 0.0.0.0").replace('"', "")
    assert " ".join(said).strip() == expected
    assert (folder, (metrics / "old").exists()) == ((str(metrics), False) if program == "web" else ("", True))


def test_the_entry_point_runs_other_commands_as_they_are() -> None:
    done = subprocess.run(
        [ROOT / "deploy/program.sh", "printf", "%s|", "a b", "c"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a b|c|"


def test_compose_has_every_program_and_opens_ports_on_loopback_only() -> None:
    services = compose()["services"]
    assert set(services) == {*PROGRAMS, "migrate", "buffer", "broker", "postgres"}
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port == f"127.0.0.1:{PORTS[name]}:{PORTS[name]}"
        if name in PROGRAMS:
            assert service["command"] == [name]
            assert set(service["environment"]) <= KNOWN, name
            for needed in service["depends_on"]:
                assert needed in services
        assert "healthcheck" in service or name in PORTS
        assert set(service.get("volumes", [])) <= {"buffer:/data", "postgres:/var/lib/postgresql"}


def test_compose_gives_the_buffer_the_policy_that_is_asked_of_it() -> None:
    services = compose()["services"]
    buffer = options(services["buffer"]["command"])
    assert buffer["appendonly"] == "yes"
    assert buffer["appendfsync"] == Settings.model_fields["fsync"].default
    assert buffer["no-appendfsync-on-rewrite"] == "no"
    assert buffer["maxmemory-policy"] == "noeviction"
    assert buffer["maxmemory"]
    assert services["buffer"]["volumes"]
    assert options(services["broker"]["command"])["appendonly"] == "no"
    urls = services["web"]["environment"]
    assert urls["REDIS_URL"] != urls["CELERY_BROKER_URL"]


def options(command: list[str]) -> dict[str, str]:
    return {name.removeprefix("--"): value for name, value in zip(command[1::2], command[2::2], strict=True)}


def test_the_manifest_runs_every_program_as_nobody_with_probes_that_exist() -> None:
    paths = {operation.path for operation in OPERATIONS}
    found = {}
    for document in manifests():
        assert {"apiVersion", "kind", "metadata", "spec"} <= set(document) or document["kind"] == "ConfigMap"
        if document["kind"] not in ("Deployment", "Job"):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["resources"]["limits"]["memory"]
        if document["kind"] == "Deployment":
            selector = document["spec"]["selector"]["matchLabels"]
            assert selector == document["spec"]["template"]["metadata"]["labels"]
            assert container["args"] == [container["name"]]
            found[container["name"]] = container
    assert set(found) == set(PROGRAMS)
    for name, port in PORTS.items():
        assert found[name]["ports"] == [{"name": "http", "containerPort": port}]
        probes = {kind: found[name][kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}
        assert probes == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}
        assert set(probes.values()) <= paths


def test_the_manifests_settings_exist_and_its_services_find_their_pods() -> None:
    documents = manifests()
    (settings,) = (document for document in documents if document["kind"] == "ConfigMap")
    assert set(settings["data"]) <= KNOWN
    assert all(isinstance(value, str) for value in settings["data"].values())
    secret = set(re.findall(r"--from-literal=(\w+)", (ROOT / "deploy/kubernetes.yaml").read_text()))
    assert secret == {"DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "BLOTTER_JWT_SECRET"} <= KNOWN
    deployed = [d["spec"]["selector"]["matchLabels"] for d in documents if d["kind"] == "Deployment"]
    for document in documents:
        if document["kind"] == "Service":
            assert document["spec"]["selector"] in deployed
            assert document["spec"]["ports"][0]["targetPort"] == "http"


def test_workers_scale_on_the_age_of_the_oldest_change() -> None:
    (scaler,) = (document for document in manifests() if document["kind"] == "ScaledObject")
    assert scaler["spec"]["scaleTargetRef"] == {"name": "blotter-worker"}
    (trigger,) = scaler["spec"]["triggers"]
    metric = GAUGES["oldestDirtyAgeSeconds"][0]
    assert trigger["metadata"]["query"] == f"max({metric})"
    assert float(trigger["metadata"]["threshold"]) > Settings.model_fields["autosave_seconds"].default
    assert scaler["spec"]["maxReplicaCount"] * 2 <= Settings.model_fields["partitions"].default
