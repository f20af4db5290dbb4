"""Another Debian in a folder, of another release or another processor, and a command run in it.

    python tools/debian.py RELEASE[/PROCESSOR] [--packages "a b ..."] [--bind FOLDER ...] -- COMMAND ...
    python tools/debian.py sid --packages python3.14 -- python3.14 --version
    python tools/debian.py bookworm/arm64 --packages python3.11:arm64 -- python3.11 -c 'import platform; print(platform.machine())'

Needs Debian on x86-64 and user namespaces (Linux 6.7 for another processor), and writes to
one folder, `$POWERSTEER_DEBIAN` or ~/.cache/powersteer-debian. Nothing is installed, root is not needed, and a second call
uses what the first has fetched: apt resolves and downloads into the folder, packages are unpacked without their scripts,
and the command runs under chroot in namespaces of its own, with the folders of --bind at the same paths.

Programs of another processor are run by QEMU's user mode, which is fetched in the same way and registered in the namespace
only. The compiler is the exception: the arm64 folder has the cross compiler, a program of this processor, so building is
not emulated.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("POWERSTEER_DEBIAN") or Path.home() / ".cache" / "powersteer-debian")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BASE = "bash coreutils sed grep"
# QEMU's name of a processor, the model that it plays, and the first 20 bytes of an ELF file, for which it is registered (as QEMU's
# own binfmt script). Its default model has SME, by which OpenBLAS 0.3.34 under QEMU 7.2 computes NaN.
EMULATED = {"arm64": ("aarch64", "cortex-a72", r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00")}
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
HOST = ("/etc/resolv.conf", "/etc/ssl/certs", "/etc/pip.conf", "/usr/local/share/ca-certificates")  # the network as it is here


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(c) for c in command], check=False, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:300]}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    return str(done.stdout)


def mirror() -> str:
    """Where this machine gets Debian from."""
    if not shutil.which("apt-get"):
        raise SystemExit("another Debian is fetched by apt, which this machine lacks")
    found = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian").split()
    plain = [uri for uri in found if uri.rstrip("/").endswith("/debian")]
    if not plain:
        raise SystemExit("apt of this machine has no Debian repository, whose mirror could be used")
    return plain[0]


def apt(release: str, processor: str) -> list[str]:
    """The options that make apt that of another Debian, with nothing installed."""
    folder = CACHE / f"apt-{release}-{processor}"
    for name in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "state/status").touch()
    (folder / "etc/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {release} main\n")
    options = {
        "Dir::State": folder / "state", "Dir::State::status": folder / "state/status", "Dir::Cache": folder / "cache",
        "Dir::Etc": folder / "etc", "APT::Architecture": "amd64", "APT::Install-Recommends": "false",
        "APT::Architectures": f"amd64,{processor}", "APT::Sandbox::User": "root",
    }  # fmt: skip
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def unpack(release: str, processor: str, packages: str) -> Path:
    """The folder of a Debian with these packages and all that they need, fetched where it is not there yet."""
    chosen = f"{BASE} {packages}".split()
    key = hashlib.sha256(f"{release} {processor} {chosen}".encode()).hexdigest()[:8]
    root = CACHE / f"{release}-{processor}-{key}"
    if root.exists():
        return root
    print(f"fetching {release}/{processor}: {packages}", file=sys.stderr)
    options = apt(release, processor)
    run("apt-get", *options, "-qq", "update")
    run("apt-get", *options, "-qq", "-y", "clean")
    run("apt-get", *options, "-qq", "-y", "--download-only", "install", *chosen)
    new = root.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):  # one tree, as every release here has it
        (new / "usr" / name).mkdir(parents=True)
        (new / name).symlink_to(f"usr/{name}")
    for package in sorted((CACHE / f"apt-{release}-{processor}/cache/archives").glob("*.deb")):
        run("dpkg-deb", "-x", package, new)
    if not (new / "bin/sh").exists():
        (new / "bin/sh").symlink_to("bash")
    for name in ("proc", "dev", "sys", "tmp", "root", "etc"):
        (new / name).mkdir(exist_ok=True)
    new.rename(root)
    return root


def emulator(name: str) -> Path:
    """QEMU's user mode for a processor."""
    program = CACHE / "qemu" / "usr/bin" / f"qemu-{name}-static"
    if not program.exists():
        folder = CACHE / "qemu"
        folder.mkdir(parents=True, exist_ok=True)
        run("apt-get", "-o", "APT::Sandbox::User=root", "download", "qemu-user-static", cwd=folder)
        for package in folder.glob("qemu-user-static*.deb"):
            run("dpkg-deb", "-x", package, folder)
    return program


def inside(root: Path, processor: str, binds: list[Path], command: list[str], cwd: str = "/") -> list[str]:
    """The command that runs `command` in `root`, whose folders of `binds` are those of this machine."""
    lines = ["set -e", f"cd '{root}'", "mount --rbind /proc proc", "mount --rbind /dev dev"]
    if processor in EMULATED:
        name, model, magic = EMULATED[processor]
        lines += [
            f"export QEMU_CPU={model}",
            "mount -t binfmt_misc none proc/sys/fs/binfmt_misc",
            rf"printf '%s' ':{name}:M::{magic}:{MASK}:{emulator(name)}:F' > proc/sys/fs/binfmt_misc/register",
        ]
    for path in [*map(str, binds), *filter(os.path.exists, HOST)]:
        here = f".{path}"
        folder = here if os.path.isdir(path) else os.path.dirname(here)
        lines.append(f"mkdir -p '{folder}'; [ -e '{here}' ] || : > '{here}'")
        lines.append(f"mount --rbind '{path}' '{here}'")
    lines.append(f"exec chroot . /bin/sh -c 'cd \"$0\" && exec \"$@\"' '{cwd}' \"$@\"")
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "\n".join(lines), "sh", *command]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("debian", metavar="RELEASE[/PROCESSOR]")
    parser.add_argument("--packages", default="")
    parser.add_argument("--bind", type=Path, nargs="*", default=[])
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    release, _, processor = args.debian.partition("/")
    processor = processor or "amd64"
    root = unpack(release, processor, args.packages)
    return subprocess.run(inside(root, processor, args.bind, args.command)).returncode


if __name__ == "__main__":
    raise SystemExit(main())
