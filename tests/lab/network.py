"""A switch and its cables: one bridge in the keeper's namespace, one pair of veth interfaces per host.

The machine itself is plugged in as address .1 through an interface that bears the lab's name. Host i has
.10+i. ``quickack`` on the routes spares an ssh login two delayed acknowledgements of 40 ms.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.lab.commands import ip, tc

QUEUE_S = 0.05
"""Room of a shaped interface: the kernel's default of 1000 packets would delay everybody by seconds."""


class Network:
    """The wiring of a lab.

    Args:
        name: of the machine's interface.
        prefix: first three bytes of the /24.
        keeper: process in whose network namespace the switch is.
        mtu: of all interfaces, bytes.
    """

    def __init__(self, name: str, prefix: str, keeper: int, mtu: int) -> None:
        self.name = name
        self.prefix = prefix
        self._keeper = keeper
        self._mtu = mtu

    def make(self) -> None:
        """The switch, with the machine plugged in."""
        ip(["link set lo up", "link add switch type bridge", "link set switch up"], of=self._keeper)
        pair = f"type veth peer name machine mtu {self._mtu} netns {self._keeper}"
        ip([
            f"link add {self.name} mtu {self._mtu} {pair}",
            f"addr add {self.prefix}.1/24 dev {self.name}",
            f"link set {self.name} up",
            self._route(self.name, f"{self.prefix}.1"),
        ])  # fmt: skip
        ip(["link set machine master switch up"], of=self._keeper)

    def wire(self, hosts: Iterable[tuple[int, int]]) -> None:
        """Give hosts (number, process) an ``eth0`` and plug it in.

        The hardware address is the host's for ever, as on a real one: others may remember it across a boot.
        """
        for i, process in hosts:
            peer = f"peer name eth0 address {mac(i)} mtu {self._mtu} netns {process}"
            self.cut([i])
            ip(
                [f"link add port{i} mtu {self._mtu} type veth {peer}", f"link set port{i} master switch up"],
                of=self._keeper,
            )
            lines = [
                "link set lo up",
                f"addr add {self.address(i)}/24 dev eth0",
                "link set eth0 up",
                self._route("eth0", self.address(i)),
            ]
            ip(lines, of=process)

    def address(self, i: int) -> str:
        """The IP address of host ``i``."""
        return f"{self.prefix}.{10 + i}"

    def cut(self, hosts: Iterable[int]) -> None:
        """Remove cables for good; those that are not there are passed over."""
        ip([f"link del port{i}" for i in hosts], of=self._keeper, check=False)

    def pull(self, i: int) -> None:
        """Unplug host ``i``; it sees that its interface has no carrier."""
        ip([f"link set port{i} down"], of=self._keeper)

    def plug(self, i: int) -> None:
        """Plug host ``i`` in again."""
        ip([f"link set port{i} up"], of=self._keeper)

    def forget(self, processes: Iterable[int]) -> None:
        """Let the machine and hosts (a process of each) ask anew where the others are."""
        ip([f"neigh flush dev {self.name}"])
        for process in processes:
            ip(["neigh flush dev eth0"], of=process)

    def rate(self, i: int, process: int, mbit: float | None) -> None:
        """Limit what host ``i`` sends and what it receives, each to ``mbit`` Mbit/s; None: no limit."""
        for device, namespace in ((f"port{i}", self._keeper), ("eth0", process)):
            tc([f"qdisc del dev {device} root"], of=namespace, check=False)
            if mbit is not None:
                bits = round(mbit * 1e6)
                room = max(2 * self._mtu, min(131072, round(bits / 8 * QUEUE_S)))
                tc([
                    f"qdisc add dev {device} root handle 1: htb default 10",
                    f"class add dev {device} parent 1: classid 1:10 htb rate {bits}bit quantum 60000",
                    f"qdisc add dev {device} parent 1:10 bfifo limit {room}",
                ], of=namespace)  # fmt: skip

    def _route(self, device: str, source: str) -> str:
        line = f"{self.prefix}.0/24 dev {device} proto kernel scope link src {source} quickack 1"
        return f"route change {line}"


def mac(i: int) -> str:
    """A locally administered hardware address for host ``i``."""
    return f"02:de:ce:00:00:{i:02x}"
