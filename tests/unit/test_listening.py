"""Which address a host's data sockets have, and which ports of a range are free."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import zmq

from launch.listening import NoAddress, free_ports, listener, own_address

CAME_BY = "10.9.9.9 55 127.0.0.3 22"


def test_what_the_hosts_file_declares_is_taken() -> None:
    assert own_address("127.0.0.2", CAME_BY, []) == "127.0.0.2"


def test_what_is_declared_must_be_of_this_host() -> None:
    with pytest.raises(NoAddress, match=r"cannot listen on bind = 192\.0\.2\.7: Cannot assign"):
        own_address("192.0.2.7", CAME_BY, ["127.0.0.1"])


def test_then_the_address_that_ssh_came_in_by() -> None:
    assert own_address(None, CAME_BY, ["nowhere.invalid"]) == "127.0.0.3"


def test_an_address_of_another_host_that_came_with_the_environment_is_no_address() -> None:
    assert own_address(None, "10.9.9.9 55 192.0.2.1 22", ["127.0.0.1"]) == "127.0.0.1"


@pytest.mark.parametrize("came_by", ["", "broken"])
def test_then_the_one_on_the_way_to_the_others(came_by: str) -> None:
    assert own_address(None, came_by, ["nowhere.invalid", "127.0.0.2"]) == "127.0.0.1"


def test_a_host_that_knows_none_is_refused() -> None:
    with pytest.raises(NoAddress, match=r"by which address others \(nowhere\.invalid\) reach it"):
        own_address(None, "", ["nowhere.invalid"])


class TestPorts:
    @pytest.fixture
    def taken(self) -> Iterator[socket.socket]:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            yield taken

    def test_taken_ones_are_told(self, taken: socket.socket) -> None:
        port = taken.getsockname()[1]
        assert free_ports("127.0.0.1", (port, port)) == (0, [port])
        assert free_ports("127.0.0.2", (port, port)) == (1, [])
        with pytest.raises(OSError, match="in use"):
            listener("127.0.0.1", port)

    def test_no_more_are_looked_for_than_are_enough(self) -> None:
        free, _ = free_ports("127.0.0.5", (20000, 65535), enough=7)
        assert free == 7

    def test_a_port_whose_connection_has_ended_is_free(self) -> None:
        """It is in TIME_WAIT, and libzmq takes it."""
        with listener("127.0.0.1", 0) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as client:
                connection, _ = server.accept()
                connection.close()  # this end first: it is the one that waits
                assert client.recv(1) == b""
        with socket.socket() as strict, pytest.raises(OSError, match="in use"):
            strict.bind(("127.0.0.1", port))
        assert free_ports("127.0.0.1", (port, port)) == (1, [])

    def test_what_libzmq_has_bound_is_taken(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            port = router.bind_to_random_port("tcp://127.0.0.1")
            assert free_ports("127.0.0.1", (port, port)) == (0, [port])
