# SPDX-License-Identifier: Apache-2.0
"""KServe's Python clients, REST and gRPC, in the clear and over TLS, against the real gateway. They
need older libraries than the other tests, so they run in an environment of their own: the cases are
in tests/support/kserve_client.py."""

import json
import re
import subprocess
import time

import models
import pytest
import weir
from gateway import Gateway, endpoint, float_columns, signature, version
from test_tls import Authority

PYTHON = weir.ROOT / ".deps/kserve/bin/python"
CLIENT = weir.ROOT / "tests/support/kserve_client.py"
CASES = re.findall(r"^async def ((?:rest|grpc)_\w+)", CLIENT.read_text(), re.MULTILINE)
LINEAR = models.linear([1, 2], 0.5)
CLASSES = models.brittle((1, 2))


@pytest.fixture(scope="module", params=["clear", "tls"])
def ends(weir_binary, tmp_path_factory, request):
    """How all cases ended, and the gateway they ran against."""
    folder = tmp_path_factory.mktemp(request.param)
    gateway, ca, settings = Gateway(folder / "gw"), None, {}
    if request.param == "tls":
        authority = Authority(folder)
        cert, key = authority.sign("server")
        ca, settings = str(authority.cert), {"tls": {"certificate": str(cert), "key": str(key)}}
    gateway.plan(
        endpoint("m", [version(gateway.blob(LINEAR))], signature(LINEAR, float_columns(2), value="score")),
        endpoint("cls", [version(gateway.blob(CLASSES))], signature(CLASSES)),
        endpoint("empty", [], signature(LINEAR)),
        **settings,
    )
    gateway.spawn()
    end = time.monotonic() + 30
    while "gateway.ready" not in gateway.log():
        assert gateway.process.poll() is None and time.monotonic() < end, gateway.log()
        time.sleep(0.01)
    where = {"rest": f"http{'s' if ca else ''}://{gateway.address}", "grpc": gateway.address, "ca": ca}
    done = subprocess.run([PYTHON, CLIENT, json.dumps(where)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout.splitlines()[-1])
    gateway.stop()


@pytest.mark.parametrize("case", CASES)
def test_kserve_client(ends, case):
    assert ends[case] is None, ends[case]
