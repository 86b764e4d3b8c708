"""Certificates for tests: an authority of our own and what it signs."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


class Authority:
    """Signs certificates of servers and clients."""

    def __init__(self, directory: Path, name: str):
        self.directory = directory
        self.name = name
        self.run("req", "-x509", *self.fresh_key(name), "-out", self.path(f"{name}.pem"), "-days", "30", "-subj", f"/CN={name}")

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fresh_key(self, name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.path(f"{name}.key")]

    @property
    def roots(self) -> str:
        return self.path(f"{self.name}.pem")

    def sign(self, name: str) -> tuple[str, str]:
        """The paths of a new certificate and its key."""
        extensions = self.directory / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        self.run("req", *self.fresh_key(name), "-out", self.path(f"{name}.csr"), "-subj", f"/CN={name}")
        self.run("x509", "-req", "-in", self.path(f"{name}.csr"), "-CA", self.roots, "-CAkey", self.path(f"{self.name}.key"),
                 "-CAcreateserial", "-out", self.path(f"{name}.pem"), "-days", "30", "-extfile", str(extensions))
        return self.path(f"{name}.pem"), self.path(f"{name}.key")

    def trust(self) -> ssl.SSLContext:
        """A client's context that believes what this authority signed."""
        return ssl.create_default_context(cafile=self.roots)
