"""The Debian package on an empty Debian: installed by apt, looked at, started as its unit says, upgraded, purged."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from containerfile import Container, Image
from roots import Failed, Root

FILES = {
    "/usr/bin/thermocline", "/etc/thermocline/thermocline.yaml", "/lib/systemd/system/thermocline.service",
    "/lib/systemd/system/thermocline.socket", "/usr/lib/sysusers.d/thermocline.conf", "/usr/share/man/man1/thermocline.1.gz",
    "/usr/share/bash-completion/completions/thermocline", "/usr/share/zsh/vendor-completions/_thermocline",
    "/usr/share/fish/vendor_completions.d/thermocline.fish", "/usr/share/doc/thermocline/README.md",
    "/usr/share/doc/thermocline/docs/README.md", "/usr/share/doc/thermocline/docs/pictures/tiers.svg",
}
STATE = "/var/lib/thermocline"
#: What systemd gives out of 10 for what a service may do that it does not need.
MOST_EXPOSURE = 1.5
COMPLETE = 'source /usr/share/bash-completion/completions/thermocline; COMP_WORDS=(thermocline insp) COMP_CWORD=1; ' \
           '$(complete -p thermocline | sed "s/.*-F \\([^ ]*\\).*/\\1/") thermocline insp thermocline; echo "${COMPREPLY[@]}"'
SET = "exec 3<>/dev/tcp/127.0.0.1/11211; printf 'set kept 0 0 5\\r\\nvalue\\r\\n' >&3; head -n1 <&3"
GET = "exec 3<>/dev/tcp/127.0.0.1/11211; printf 'get kept\\r\\n' >&3; head -n2 <&3"


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise Failed(what)


def install(root: Root, package: Path) -> None:
    root.inside("root/thermocline.deb").write_bytes(package.read_bytes())
    root.run("apt-get update -q && apt-get install -y -q --no-install-recommends /root/thermocline.deb")
    listed = set(root.run("dpkg -L thermocline").splitlines())
    expect(FILES <= listed, f"the package lacks {FILES - listed}")
    expect(all(root.inside(path).exists() for path in FILES), "a file of the package is not there")
    root.run("getent passwd thermocline")


def look_at(root: Root) -> None:
    """What it brings besides the program does its job."""
    root.run("apt-get install -y -q --no-install-recommends man-db zsh fish bash-completion systemd")
    said = root.run("systemd-analyze verify thermocline.service thermocline.socket")
    expect(not re.search(r"thermocline", said), f"systemd-analyze verify: {said}")
    said = root.run("systemd-analyze security --offline=true --no-pager thermocline.service")
    exposure = float(re.search(r"exposure level for thermocline.service: ([\d.]+)", said)[1])
    expect(exposure <= MOST_EXPOSURE, f"exposure {exposure}")
    said = root.run("man --warnings thermocline 2>&1", more={"MANPAGER": "cat", "MANWIDTH": "100"})
    expect("--cold-limit" in said and "inspect" in said and "warning" not in said, "the man page is not whole")
    expect("inspect" in root.run(["bash", "-c", COMPLETE]).split(), "bash does not complete a command")
    root.run("zsh -n /usr/share/zsh/vendor-completions/_thermocline && fish -n /usr/share/fish/vendor_completions.d/thermocline.fish")
    said = root.run(["fish", "-c", "complete -C 'thermocline insp'"])
    expect("inspect" in said, "fish does not complete a command")


def start(root: Root) -> Container:
    """As systemd would: the unit's command, user and directory, and process 1 of a network of its own."""
    unit = dict(re.findall(r"^(\w+)=(.*)$", root.inside("lib/systemd/system/thermocline.service").read_text(), re.MULTILINE))
    image = Image(root)
    image.user, image.folder = unit["User"], "/"
    image.variables = {"STATE_DIRECTORY": f"/var/lib/{unit['StateDirectory']}"}
    words = ", ".join(f'"{word}"' for word in shlex.split(unit["ExecStart"]))
    image.said = {"ENTRYPOINT": f"[{words}]", "CMD": "[]", "HEALTHCHECK": 'CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/11211"]'}
    root.run(f"install -d -o {unit['User']} -g {unit['Group']} -m {unit['StateDirectoryMode']} {image.variables['STATE_DIRECTORY']}")
    container = Container(image)
    container.wait_until_healthy()
    return container


def use(root: Root) -> None:
    container = start(root)
    try:
        expect(container.execute(["bash", "-c", SET]).stdout == "STORED\n", "a set")
        expect(container.stop() == 0, "SIGTERM is no clean stop")
    finally:
        container.kill()
    container = start(root)
    try:
        expect("value" in container.execute(["bash", "-c", GET]).stdout, "the item is gone after a restart")
        container.stop()
    finally:
        container.kill()
    expect(root.inside(f"{STATE}/thermocline-11211.db").stat().st_mode & 0o777 == 0o600, "the file of the cold tier is not 0600")


def upgrade_and_remove(root: Root) -> None:
    settings = root.inside("etc/thermocline/thermocline.yaml")
    settings.write_text(settings.read_text() + "\n# a change\n")
    root.run("apt-get install -y -q --reinstall /root/thermocline.deb")
    expect("# a change" in settings.read_text(), "an upgrade forgets changed settings")
    root.run("apt-get remove -y -q thermocline")
    expect(settings.exists() and root.inside(STATE).exists(), "items or settings go with the program")
    root.run("apt-get purge -y -q thermocline")
    left = [path for path in (*FILES, STATE, "/etc/thermocline") if root.inside(path).exists()]
    expect(not left, f"a purge leaves {left}")
