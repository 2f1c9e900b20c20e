# SPDX-License-Identifier: Apache-2.0
"""TLS on the gateway's port: who may come in, what bad bytes do, and certificates that change."""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time

import models
import pytest
from gateway import Gateway, endpoint, infer_body, read_all, signature, version

LINEAR = models.linear([1, 2], 0.5)


class Authority:
    """Makes keys and certificates with the openssl program."""

    def __init__(self, folder, name="authority"):
        self.folder, self.name = folder, name
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                 "30", "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.cert)

    def run(self, *words):
        done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def sign(self, name, days=10, ends=None):
        """(certificate, key) of `name` for 127.0.0.1, signed by this authority."""
        key, ask, cert, more = (self.folder / f"{name}.{e}" for e in ("key", "csr", "pem", "ext"))
        more.write_text("subjectAltName=IP:127.0.0.1\n")
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                 f"/CN={name}", "-keyout", key, "-out", ask)
        if ends is None:
            self.run("x509", "-req", "-in", ask, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial",
                     "-days", days, "-extfile", more, "-out", cert)
        else:  # a span in the past needs the fuller tool
            (self.folder / "index.txt").write_text("")
            conf = self.folder / "ca.conf"
            conf.write_text(f"[ca]\ndefault_ca=c\n[c]\ndatabase={self.folder}/index.txt\nnew_certs_dir="
                            f"{self.folder}\nserial={self.folder}/s.srl\ndefault_md=sha256\npolicy=p\n"
                            "[p]\ncommonName=supplied\n")
            self.run("ca", "-config", conf, "-batch", "-rand_serial", "-cert", self.cert, "-keyfile",
                     self.key, "-in", ask, "-startdate", "20200101000000Z", "-enddate", ends, "-notext",
                     "-out", cert)
        return cert, key


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def secure(weir_binary, tmp_path, authority):
    """make(**tls settings) -> a running gateway that speaks TLS; its log and process as ever."""
    made = []

    def make(start=True, **tls):
        gw = Gateway(tmp_path / "gw")
        cert, key = authority.sign("server")
        gw.plan(endpoint("m", [version(gw.blob(LINEAR))], signature(LINEAR)),
                tls={"certificate": str(cert), "key": str(key), **tls})
        made.append(gw)
        if start:
            gw.spawn()
            end = time.monotonic() + 20
            while "gateway.ready" not in gw.log():
                assert gw.process.poll() is None and time.monotonic() < end, gw.log()
                time.sleep(0.01)
        return gw

    yield make
    for gw in made:
        gw.stop()


def trusting(authority, **more):
    context = ssl.create_default_context(cafile=authority.cert)
    for key, value in more.items():
        setattr(context, key, value)
    return context


def ask(gw, context, path="/v2/models/m/infer"):
    connection = http.client.HTTPSConnection("127.0.0.1", gw.port, context=context, timeout=10)
    connection.request("POST", path, json.dumps(infer_body([[1, 2]])))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()), connection


def lives(gw, authority):
    assert ask(gw, trusting(authority))[:2][0] == 200


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_over_tls(secure, authority, most):
    gw = secure()
    status, body, connection = ask(gw, trusting(authority, maximum_version=most))
    assert status == 200 and body["outputs"][0]["data"] == [5.5]
    for i in range(50):  # kept alive, also with bodies of several records
        rows = 1 + i % 2 * 200
        connection.request("POST", "/v2/models/m/infer", json.dumps(infer_body([[i, 2]] * rows)))
        answer = json.loads(connection.getresponse().read())
        assert answer["outputs"][0]["data"] == [i + 4.5] * rows


def test_old_versions_and_strangers_are_refused(secure, authority, tmp_path):
    gw = secure()
    old = trusting(authority)
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(gw, old)
    with pytest.raises(ssl.SSLError):  # a client that trusts another authority
        ask(gw, trusting(Authority(tmp_path, "other")))
    unknown = trusting(authority)
    unknown.set_alpn_protocols(["spdy/3"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(gw, unknown)
    lives(gw, authority)


def test_bytes_that_are_no_tls(secure, authority):
    gw = secure()
    for data in (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", os.urandom(3000),
                 b"\x16\x03\x01\xff\xff" + b"a" * 70000, b"\x16\x03\x01\x00\x05hello",
                 b"\x00", b"\x15\x03\x03\x00\x02\x02\x28"):
        with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            assert b"HTTP" not in read_all(s)
    lives(gw, authority)


def test_half_a_handshake_is_given_up(secure, authority):
    gw = secure()
    context = trusting(authority)
    inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
    shake = context.wrap_bio(inside, outside, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        shake.do_handshake()
    hello = outside.read()
    with socket.create_connection(("127.0.0.1", gw.port), 30) as s:
        for byte in hello[:40]:
            s.sendall(bytes([byte]))
        lives(gw, authority)  # nobody waits for the slow one
    with socket.create_connection(("127.0.0.1", gw.port), 30) as s:
        for i in range(0, len(hello), 7):  # in pieces it is the same
            s.sendall(hello[i:i + 7])
            time.sleep(0.001)
        assert s.recv(5)[0] == 0x16


def test_no_renegotiation(secure, authority):
    gw = secure()
    done = subprocess.run(
        ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{gw.port}", "-CAfile", authority.cert],
        input="R\n", capture_output=True, text=True, timeout=20)
    assert "no renegotiation" in done.stderr.lower() or done.returncode != 0, done.stderr
    lives(gw, authority)


def test_clients_must_show_a_certificate(secure, authority, tmp_path):
    gw = secure(client_ca=str(authority.cert))
    bare = trusting(authority)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(gw, bare)
    known = trusting(authority)
    known.load_cert_chain(*authority.sign("client"))
    assert ask(gw, known)[0] == 200
    stranger = trusting(authority)
    stranger.load_cert_chain(*Authority(tmp_path, "third").sign("stranger"))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(gw, stranger)
    assert ask(gw, known)[0] == 200


def serial(gw, authority):
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s, \
            trusting(authority).wrap_socket(s, server_hostname="127.0.0.1") as t:
        return t.getpeercert()["serialNumber"]


def test_new_certificates_need_no_restart(secure, authority, tmp_path):
    gw = secure()
    first = serial(gw, authority)
    _, _, kept = ask(gw, trusting(authority))
    right_key = (tmp_path / "server.key").read_bytes()
    cert, _ = authority.sign("other")
    (tmp_path / "server.pem").write_bytes(cert.read_bytes())  # a certificate of another key
    end = time.monotonic() + 10
    while "tls.refused" not in gw.log():
        assert time.monotonic() < end, gw.log()
        time.sleep(0.05)
    assert serial(gw, authority) == first and "does not belong to the certificate" in gw.log()
    authority.sign("server")
    assert (tmp_path / "server.key").read_bytes() != right_key
    while serial(gw, authority) == first:
        assert time.monotonic() < end + 10, gw.log()
        time.sleep(0.05)
    kept.request("POST", "/v2/models/m/infer", json.dumps(infer_body([[1, 2]])))
    assert kept.getresponse().status == 200  # who was there before stays


def test_files_that_cannot_be_used(secure, authority, tmp_path):
    def start(**tls):
        gw = secure(start=False)
        gw.plan(endpoint("m", [version(gw.blob(LINEAR))], signature(LINEAR)), tls=tls)
        gw.spawn()
        status = gw.process.wait(20)
        log = gw.log()
        shutil.rmtree(gw.folder)
        return status, log

    cert, key = authority.sign("server")
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nzzz\n-----END CERTIFICATE-----\n")
    _, other_key = authority.sign("somebody")
    for tls, words in (
        ({"certificate": "none.pem", "key": str(key)}, "none.pem"),
        ({"certificate": str(cert)}, "no key"),
        ({"certificate": str(junk), "key": str(key)}, "junk.pem"),
        ({"certificate": str(cert), "key": str(other_key)}, "does not belong"),
    ):
        status, log = start(**tls)
        assert status != 0 and words in log, log
    expired = authority.sign("gone", ends="20210101000000Z")
    status, log = start(certificate=str(expired[0]), key=str(expired[1]))
    assert status != 0 and "has expired" in log, log

