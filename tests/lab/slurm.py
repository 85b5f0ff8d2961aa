"""A Slurm cluster on the hosts of a lab: slurmctld on h1, slurmd and munged on every host.

The machine itself is the login node: it has a munged of its own, whose socket only root reaches. No cgroups,
no accounting, no plugin that needs systemd.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator

from tests.lab.commands import LabError, environment
from tests.lab.lab import Lab
from tests.lab.pids import end, note
from tests.lab.requirements import find, unmet

READY_S = 60.0
CONFIGURATION = """\
ClusterName=lab
SlurmctldHost=h1({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
{login}StateSaveLocation=/var/spool/slurm-lab/ctld
SlurmdSpoolDir=/var/spool/slurm-lab/d
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
MailProg=/bin/true
# A node that was cut off and comes back is used again.
ReturnToService=2
SlurmdTimeout=10
MessageTimeout=5
InactiveLimit=0
KillWait=5
# Without keepalives srun waits for a dead node for ever; with them it notices after 18 s.
CommunicationParameters=keepalivetime=5,keepaliveinterval=2,keepaliveprobes=3
# More processors than the machine has; and the login node's file differs by a line.
SlurmdParameters=config_overrides
DebugFlags=NO_CONF_HASH
NodeName=DEFAULT CPUs={cpus} RealMemory=2000 State=UNKNOWN
{nodes}PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
START = """\
set -eu
mkdir -p /run/munge /etc/slurm /var/spool/slurm-lab/ctld /var/spool/slurm-lab/d
read -r key
(umask 077; printf %s "$key" >/run/munge/lab.key)
cat >/etc/slurm/slurm.conf
runs() { kill -0 "$(cat "$1" 2>/dev/null)" 2>/dev/null; }
runs /run/munge/munged.pid || munged --key-file=/run/munge/lab.key --pid-file=/run/munge/munged.pid \\
    --seed-file=/run/munge/seed --log-file=/run/munge/log
if [ "$1" = h1 ]; then runs /run/slurmctld.pid || slurmctld; fi
runs /run/slurmd.pid || slurmd -N "$1"
"""
"""What starts the daemons on host $1; the key and slurm.conf come on standard input."""


class Slurm:
    """Slurm on ``lab``, up inside the ``with`` statement.

    Args:
        lab: the hosts, which are up; they are nodes h1, h2, ...
        cpus: processors that each node claims, whatever the machine has.
    """

    def __init__(self, lab: Lab, cpus: int = 4) -> None:
        self.lab = lab
        self.cpus = cpus
        self.folder = lab.folder / "slurm"
        self._note = lab.folder / "munged.pid"
        self._key = secrets.token_hex(64)

    @property
    def variables(self) -> dict[str, str]:
        """Environment with which srun, sbatch, salloc and sinfo of the machine speak to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Slurm:
        if reason := unmet(slurm=True):
            raise RuntimeError(reason)
        self.folder.mkdir(mode=0o700)
        (self.folder / "key").touch(0o600)
        (self.folder / "key").write_text(self._key, encoding="ascii")
        login = f"AuthInfo=socket={self.folder}/munge.socket\n"
        (self.folder / "slurm.conf").write_text(self._configuration(login), encoding="ascii")
        self._start_login_munge()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end(self._note)
        for i in list(self.lab.hosts):
            daemons = ["slurmctld.pid", "slurmd.pid", "munge/munged.pid"]
            for name in daemons:
                self.lab.exec(i, "sh", "-c", f"kill $(cat /run/{name})", check=False)

    def start(self) -> None:
        """Start every daemon that does not run (all, or those of hosts that were booted); wait until idle."""
        self._start_daemons()
        self._await_idle()

    def _start_daemons(self) -> None:
        for i in self.lab.hosts:
            stdin = f"{self._key}\n{self._configuration('')}"
            self.lab.exec(i, "sh", "-c", START, "start", f"h{i}", stdin=stdin)

    def _await_idle(self) -> None:
        deadline = time.monotonic() + READY_S
        while (ready := set(self._idle())) != set(self.lab.addresses):
            if time.monotonic() > deadline:
                raise LabError(f"of {self.lab.n} nodes only {sorted(ready)} came up:\n{self.logs()}")
            time.sleep(0.1)
        for host in self.lab.hosts.values():
            host.settle()

    def restore(self) -> None:
        """End all jobs; hosts and daemons as at the beginning."""
        self.lab.restore()
        self._start_daemons()
        self.run("scancel", "--user=root")
        self._await_idle()

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` on the login node."""
        return subprocess.run(
            command, env={**os.environ, **self.variables}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=check, timeout=timeout_s,
        )  # fmt: skip

    def logs(self) -> str:
        """The last lines of all daemons."""
        words = "for log in /var/log/slurm*.log /run/munge/log; do echo == $log; tail -n 8 $log; done"
        return "\n".join(
            f"{i}: {self.lab.exec(i, 'sh', '-c', words, check=False).stdout}" for i in self.lab.hosts
        )

    def _idle(self) -> Iterator[str]:
        done = self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False)
        yield from done.stdout.split()

    def _configuration(self, login: str) -> str:
        nodes = [f"NodeName={name} NodeAddr={address}\n" for name, address in self.lab.addresses.items()]
        return CONFIGURATION.format(
            controller=self.lab.addresses["h1"], login=login, cpus=self.cpus, nodes="".join(nodes)
        )

    def _start_login_munge(self) -> None:
        files = {"key-file": "key", "socket": "munge.socket", "pid-file": "pid", "seed-file": "seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        # --force: the socket is in a folder that only root may enter, which munged does not like.
        command = [find("munged") or "munged", "--force", f"--log-file={self.folder / 'log'}", *options]
        done = subprocess.run(
            command, env=environment(str(self.lab.folder)), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise LabError(f"munged: {done.stderr.strip()}")
        note(self._note, int((self.folder / "pid").read_text(encoding="ascii")))
