"""Hosts files and Slurm's lists: what is read from them, and every refusal in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.errors import ConfigError
from launch.hostlist import expand
from launch.hosts import Host, Hosts, load_hosts, slurm_hosts

# host "NAME": key = value: expectation; next step
PROBLEM = re.compile(r'(?:host (?:"[^"]+"|\d+): )?[\w.$\[\]-]+ = \S.*?: \w[^;]{3,}; \S.{3,}')

FULL = r"""
[defaults]
user = "ann"
python = "/opt/python3"
folder = "/scratch/$(whoami); 'x' \"y\""
ssh_options = ["-o", "ProxyCommand=nc -X 5 %h %p; echo '$( )'"]

[[host]]
name = "gpu1"
address = "2001:db8::1"
bind = "10.0.0.1"
port = 2222
python = "/opt/my python/bin/python3"
cores = 8
share = 2
data = "-data"
ports = "20000-20999"
nodes = [3, 0]

[[host]]
name = "gpu2"
user = "bob"
ssh_options = []
regions = ["Tokyo"]

[[host]]
name = "localhost"
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "hosts.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refusal:
        load_hosts(path)
    assert [problem for problem in refusal.value.problems if not PROBLEM.fullmatch(problem)] == []
    return refusal.value.problems


class TestToml:
    def test_everything(self, write) -> None:
        path = write(FULL)
        hosts = load_hosts(path)
        assert (hosts.source, hosts.kind) == (str(path), "ssh")
        gpu1, gpu2, here = hosts.hosts
        assert gpu1.model_dump() == {
            **{"name": "gpu1", "address": "2001:db8::1", "bind": "10.0.0.1", "user": "ann", "port": 2222},
            **{"python": "/opt/my python/bin/python3", "cores": 8, "share": 2.0, "data": "-data"},
            **{"folder": "/scratch/$(whoami); 'x' \"y\"", "ports": "20000-20999"},
            "ssh_options": ("-o", "ProxyCommand=nc -X 5 %h %p; echo '$( )'"),
            **{"nodes": (3, 0), "regions": None, "local": False},
        }
        assert (gpu1.target, gpu1.port_range) == ("2001:db8::1", (20000, 20999))
        assert (gpu2.target, gpu2.user, gpu2.ssh_options, gpu2.regions) == ("gpu2", "bob", (), ("Tokyo",))
        assert gpu2.port_range is None
        # what ssh alone needs is not inherited by a host that is reached without it
        assert (here.local, here.user, here.ssh_options, here.folder) == (True, None, (), gpu1.folder)
        assert here.python is None

    @pytest.mark.parametrize("text", ["name='localhost'\nlocal=false\nuser='x'", "name='a'\nuser='x'"])
    def test_reached_by_ssh(self, text: str, write) -> None:
        (host,) = load_hosts(write(f"[[host]]\n{text}")).hosts
        assert (host.local, host.user) == (False, "x")

    def test_hosts_survive_json(self, write) -> None:
        hosts = load_hosts(write(FULL))
        assert Hosts.model_validate_json(hosts.model_dump_json()) == hosts

    def test_all_problems_at_once(self, write) -> None:
        text = "[[host]]\nname='a'\nport=0\nshare=-1\n[[host]]\nname='b'\ncores=1.5\n[[host]]\nname='b'\n"
        assert problems_of(write(text)) == (
            'host "a": port = 0: must be >= 1; use 1 or more',
            'host "a": share = -1: must be >= 0; use 0 or more',
            'host "b": cores = 1.5: must be an integer; write a whole number such as 1',
        )

    def test_problems_of_defaults_are_told_once(self, write) -> None:
        text = "[defaults]\nports='9-8'\n[[host]]\nname='a'\n[[host]]\nname='b'\nport='22'\n"
        first, second = problems_of(write(text))
        assert first.startswith('defaults.ports = "9-8": must rise')
        assert second.startswith('host "b": port = "22": must be an integer; remove the quotes')


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("name='-x'", "name", "must be 1 to 80 of"),
        ("name='.x'", "name", "start with a letter or digit"),
        ("name='a/b'", "name", "must be 1 to 80 of"),
        ("name=''", "name", "must be 1 to 80 of"),
        ("name='a b'", "name", 'address = "..."'),
        ("name='user@host'", "name", "must be 1 to 80 of"),
        ("name='ä'", "name", "must be 1 to 80 of"),
        (f"name='{'x' * 81}'", "name", "must be 1 to 80 of"),
        ("name=7", "name", "must be a string"),
        ("cores=8", "name", "is required"),
        ("name='a'\naddress='-oProxyCommand=x'", "address", "must not start with -"),
        ("name='a'\naddress='b;c'", "address", "must be of A-Z a-z 0-9"),
        ("name='a'\nuser='$(b)'", "user", "must be of A-Z a-z 0-9"),
        ("name='a'\nuser='-l'", "user", "must not start with -"),
        ("name='a'\naddress=''", "address", "must be one line of text"),
        ('name="a"\naddress="b\\u0000c"', "address", "must be one line of text"),
        ('name="a"\nfolder="b\\nc"', "folder", "must be one line of text"),
        ('name="a"\nssh_options=["b\\rc"]', "ssh_options[0]", "must be one line of text"),
        ("name='a'\nssh_options='-v'", "ssh_options", "must be a list"),
        ("name='a'\nbind='*'", "bind", "must be an IP address"),
        ("name='a'\nbind='gpu1'", "bind", "such as 10.0.0.11"),
        ("name='a'\nbind='0.0.0.0'", "bind", "must be one address"),
        ("name='a'\nbind='::'", "bind", "must be one address"),
        ("name='a'\nbind='224.0.0.1'", "bind", "must be one address"),
        ("name='a'\nports='20000'", "ports", "must be a first and a last port"),
        ("name='a'\nports='3-2'", "ports", "must rise and lie between 1024 and 65535"),
        ("name='a'\nports='60000-65536'", "ports", "must rise and lie between 1024 and 65535"),
        ("name='a'\nports=20000", "ports", "must be a string"),
        ("name='a'\nport=65536", "port", "must be <= 65535"),
        ("name='a'\ncores=0", "cores", "must be >= 1"),
        ("name='a'\nshare=nan", "share", "must be a finite number"),
        ("name='a'\nnodes=[]", "nodes", "must have at least 1 entry"),
        ("name='a'\nnodes=[1,-1]", "nodes[1]", "must be >= 0"),
        ("name='a'\nnodes=[1,1]", "nodes", "lists 1 more than once"),
        ("name='a'\nnodes=[1]\nregions=['x']", "regions", "cannot stand beside nodes"),
        ("name='a'\nlocal=true\nuser='x'", "user", "is for ssh, and this host is local"),
        ("name='localhost'\naddress='b'", "address", "is for ssh, and this host is local"),
        ("name='a'\nlocal=true\npython='/p'", "python", "is for ssh, and this host is local"),
        ("name='a'\nlocal='yes'", "local", "must be true or false"),
        ("name='a'\nadress='b'", "adress", "did you mean address?"),
        ("name='a'\npassword='b'", "password", "is not a known key; use one of address, bind"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(text: str, key: str, words: str, write) -> None:
    (problem,) = problems_of(write(f"[[host]]\n{text}\n"))
    assert problem.partition(": ")[2].startswith(f"{key} = ") or problem.startswith(f"{key} = ")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[hosts]]\nname='a'", "hosts = .*did you mean host"),
        ("host = 'a'", "host = .*write \\[\\[host\\]\\]"),
        ("[host]\nname='a'", "host = .*must be a list of tables"),
        ("defaults = 3\n[[host]]\nname='a'", "defaults = 3: must be a table"),
        ("[defaults]\nnodes=[1]\n[[host]]\nname='a'", "defaults.nodes = .*is of one host alone"),
        ("[[host]]\nname='a'\n[[host]]\nname='a'", "host.name = .*is the name of 2 hosts"),
        ("[[host]]\nname='a'\nnodes=[1,2]\n[[host]]\nname='b'\nnodes=[2]", "host.nodes = 2: .* by a, b"),
        (
            "[[host]]\nname='a'\nregions=['x']\n[[host]]\nname='b'\nregions=['x']",
            'host.regions = "x": is listed by a, b',
        ),
        ("[defaults]\nuser='x'", "names no host"),
        ("", "names no host"),
        ("# nothing\n\n", "names no host"),
        ("name = ", "is not TOML"),
        ("a = " + "[" * 20_000, "is not TOML"),
    ],
)
def test_mistakes_of_the_file(text: str, words: str, write) -> None:
    problems = problems_of(write(text))
    assert any(re.search(words, problem) for problem in problems), problems


class TestFiles:
    @pytest.mark.parametrize("name", ["hosts", "hosts.txt", "hosts.list"])
    def test_a_name_on_every_line(self, name: str, write) -> None:
        hosts = load_hosts(write("\ufeff# the lab\nh1\n\n  h2.lab  # the fast one\r\nlocalhost\n", name))
        assert [(host.name, host.local) for host in hosts.hosts] == [
            ("h1", False),
            ("h2.lab", False),
            ("localhost", True),
        ]

    def test_toml_is_recognised_without_its_ending(self, write) -> None:
        assert load_hosts(write("# all\n[[host]]\nname = 'a'\n", "hosts")).hosts == (Host(name="a"),)

    @pytest.mark.parametrize("line", ["ann@h1", "h1 slots=4", "-h1", "h1,h2", "$(reboot)"])
    def test_other_notations_are_refused(self, line: str, write) -> None:
        problems = problems_of(write(f"h0\n{line}\n", "hosts"))
        assert [problem.startswith("host 2: name = ") for problem in problems] == [True]

    def test_unreadable(self, tmp_path: Path) -> None:
        assert "No such file" in problems_of(tmp_path / "absent.toml")[0]
        assert "Is a directory" in problems_of(tmp_path)[0]
        (tmp_path / "binary").write_bytes(b"h1\n\xff\xfe")
        assert "is not UTF-8 text (byte 3)" in problems_of(tmp_path / "binary")[0]


class TestSlurm:
    @pytest.mark.parametrize(
        ("listed", "names"),
        [
            ("h1", ["h1"]),
            ("h[1-3,7],x01", ["h1", "h2", "h3", "h7", "x01"]),
            ("n[08-11]", ["n08", "n09", "n10", "n11"]),
            ("r[1-2]n[01-02]-ib", ["r1n01-ib", "r1n02-ib", "r2n01-ib", "r2n02-ib"]),
            ("a,b[2],c", ["a", "b2", "c"]),
        ],
    )
    def test_names_are_written_out(self, listed: str, names: list[str]) -> None:
        assert expand(listed) == names
        hosts = slurm_hosts({"SLURM_JOB_NODELIST": listed})
        assert [host.name for host in hosts.hosts] == names
        assert (hosts.kind, hosts.source) == ("slurm", "$SLURM_JOB_NODELIST")

    @given(st.lists(st.integers(0, 9999), min_size=1, max_size=8, unique=True), st.integers(0, 4))
    def test_numbers_keep_their_zeros(self, numbers: list[int], width: int) -> None:
        words = [str(number).zfill(width) for number in numbers]
        assert expand(f"n[{','.join(words)}]") == [f"n{word}" for word in words]

    def test_cores(self) -> None:
        told = {"SLURM_JOB_NODELIST": "h[1-3],localhost", "SLURM_JOB_CPUS_PER_NODE": "4(x2),8,1"}
        hosts = slurm_hosts(told).hosts
        assert [(host.name, host.cores, host.local) for host in hosts] == [
            ("h1", 4, False),
            ("h2", 4, False),
            ("h3", 8, False),
            ("localhost", 1, False),
        ]
        assert slurm_hosts({"SLURM_JOB_NODELIST": "h1"}).hosts[0].cores is None

    @pytest.mark.parametrize(
        "listed",
        [
            *("h[1-3", "h1-3]", "h[]", "h[3-1]", "h[a-b]", "h[[1]]", "h1,,h2", "h1,", "h1,h1", "h[1-2],h2"),
            *("-h1", "$(x)", "h[0-999999999]", "h[0-999]x[0-999]", "[1-3]h/"),
        ],
    )
    def test_other_notations_are_refused(self, listed: str) -> None:
        with pytest.raises(ConfigError, match=r"SLURM_JOB_NODELIST.*Slurm does not write so; name the hosts"):
            slurm_hosts({"SLURM_JOB_NODELIST": listed})

    @pytest.mark.parametrize("cpus", ["x", "4(x0)x", "0", "4(x2", "4,4", "4(x99999)"])
    def test_cores_that_are_no_numbers_for_all(self, cpus: str) -> None:
        with pytest.raises(ConfigError, match="SLURM_JOB_CPUS_PER_NODE"):
            slurm_hosts({"SLURM_JOB_NODELIST": "h[1-3]", "SLURM_JOB_CPUS_PER_NODE": cpus})

    @pytest.mark.parametrize("environ", [{}, {"SLURM_JOB_NODELIST": ""}])
    def test_outside_an_allocation(self, environ: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match="inside salloc or sbatch"):
            slurm_hosts(environ)
