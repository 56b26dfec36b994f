"""The handshake: two ends joined without a socket, and what may go wrong between them."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from creamas_sc.errors import HandshakeError
from creamas_sc.wire.frames import HELLO_FRAME_BYTES, Frame, FrameReader, Kind
from creamas_sc.wire.handshake import Handshake, Identity

MASTER = Identity("novelty", b"k" * 32, "master", "tcp://localhost:5555", 100)
SLAVE = Identity("novelty", b"k" * 32, "slave", "tcp://localhost:5556", 200)


def sent(end: Handshake) -> list[Frame]:
    data = b"".join(end.data_to_send())
    return FrameReader(HELLO_FRAME_BYTES).receive_data(data)


def exchange(client: Handshake, server: Handshake) -> int:
    """Carry frames until neither side has any; returns their number."""
    count = 0
    while True:
        moved = [(server, frame) for frame in sent(client)]
        moved += [(client, frame) for frame in sent(server)]
        if not moved:
            return count
        for end, frame in moved:
            end.receive(frame)
            count += 1


def refusal(client: Handshake, server: Handshake) -> tuple[str, str]:
    """What the end that refuses says, and what the other one hears."""
    with pytest.raises(HandshakeError) as refused:
        exchange(client, server)
    with pytest.raises(HandshakeError) as heard:
        exchange(client, server)
    assert not client.complete or not server.complete
    return str(refused.value), str(heard.value)


def test_both_ends_know_each_other_after_three_frames() -> None:
    client, server = Handshake(MASTER, client=True), Handshake(SLAVE, client=False)
    assert exchange(client, server) == 3
    assert client.complete
    assert server.complete
    assert client.peer == replace(SLAVE, key=b"")
    assert server.peer == replace(MASTER, key=b"")


def test_the_key_never_travels() -> None:
    client, server = Handshake(MASTER, client=True), Handshake(SLAVE, client=False)
    hello = b"".join(client.data_to_send())
    for frame in FrameReader().receive_data(hello):
        server.receive(frame)
    answer = b"".join(server.data_to_send())
    assert MASTER.key not in hello + answer
    assert "kkk" not in repr(MASTER)


def test_another_simulation_is_refused_by_both_names() -> None:
    client = Handshake(MASTER, client=True)
    server = Handshake(replace(SLAVE, simulation="spiro"), client=False)
    for text in refusal(client, server):
        assert "'novelty'" in text
        assert "'spiro'" in text


def test_a_stranger_on_the_network_does_not_hear_which_simulation_this_is() -> None:
    client = Handshake(replace(MASTER, simulation="guessed"), client=True)
    server = Handshake(SLAVE, client=False, discreet=True)
    said, heard = refusal(client, server)
    assert "'guessed' met slave tcp://localhost:5556 of simulation 'novelty'" in said
    assert heard == "the peer refused: this is another simulation"


def test_a_client_with_a_wrong_key() -> None:
    client = Handshake(replace(MASTER, key=b"x" * 32), client=True)
    server = Handshake(SLAVE, client=False)
    for text in refusal(client, server):
        assert "wrong key" in text
    assert not client.complete
    assert not server.complete


def test_a_client_that_skips_the_check_is_refused_by_the_server() -> None:
    server = Handshake(SLAVE, client=False)
    [hello] = sent(Handshake(replace(MASTER, key=b"x" * 32), client=True))
    server.receive(hello)
    with pytest.raises(HandshakeError, match="wrong key"):
        server.receive(Frame(Kind.HELLO, 0, b"\0" * 32))
    assert not server.complete
    assert sent(server)[-1].meta == b"refused"


def test_a_proof_cannot_be_reflected() -> None:
    # Without the key: take the server's own proof, and offer it as the client's.
    server = Handshake(SLAVE, client=False)
    [hello] = sent(Handshake(replace(MASTER, key=b"x" * 32), client=True))
    server.receive(hello)
    [answer] = sent(server)
    with pytest.raises(HandshakeError, match="wrong key"):
        server.receive(Frame(Kind.HELLO, 0, answer.meta))


def test_a_proof_cannot_be_replayed() -> None:
    client, server = Handshake(MASTER, client=True), Handshake(SLAVE, client=False)
    [hello] = sent(client)
    server.receive(hello)
    client.receive(sent(server)[0])
    [proof] = sent(client)
    again = Handshake(SLAVE, client=False)
    again.receive(hello)
    with pytest.raises(HandshakeError, match="wrong key"):
        again.receive(proof)


@pytest.mark.parametrize("field", range(1, 5))
def test_what_is_told_in_clear_cannot_be_altered(field: int) -> None:
    client, server = Handshake(MASTER, client=True), Handshake(SLAVE, client=False)
    [hello] = sent(client)
    server.receive(hello)
    [answer] = sent(server)
    message = msgpack.unpackb(answer.body)
    message[field] = message[field] + (1 if isinstance(message[field], int) else "x")
    with pytest.raises(HandshakeError):
        client.receive(answer._replace(body=msgpack.packb(message)))
    assert not client.complete


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.REQUEST, 1, b"", b""),
        Frame(Kind.HELLO, 1, b"", b""),
        Frame(Kind.HELLO, 0, b"", b""),
        Frame(Kind.HELLO, 0, b"", b"\xc1"),
        Frame(Kind.HELLO, 0, b"", b"\x91" * 1000),
        Frame(Kind.HELLO, 0, b"", bytes(HELLO_FRAME_BYTES + 1)),
        Frame(Kind.HELLO, 0, b"", msgpack.packb([])),
        Frame(Kind.HELLO, 0, b"", msgpack.packb({"a": 1})),
        Frame(Kind.HELLO, 0, b"", msgpack.packb([True, "novelty", "m", "a", 1, bytes(32)])),
        Frame(Kind.HELLO, 0, b"", msgpack.packb([1, "novelty", "m", "a", "1", bytes(32)])),
        Frame(Kind.HELLO, 0, b"", msgpack.packb([1, "novelty", "m", "a", 1, bytes(8)])),
        Frame(Kind.HELLO, 0, b"", msgpack.packb([1, "novelty", "m", "a", 1])),
        Frame(Kind.HELLO, 0, b"", b"", [b"part"]),
    ],
)
@pytest.mark.parametrize("client", [True, False])
def test_anything_else_is_refused(frame: Frame, client: bool) -> None:
    end = Handshake(MASTER, client=client)
    with pytest.raises(HandshakeError):
        end.receive(frame)
    assert sent(end)[-1].meta == b"refused"
    with pytest.raises(HandshakeError, match="over"):
        end.receive(frame)


def test_another_version_is_named() -> None:
    hello = Frame(Kind.HELLO, 0, b"", msgpack.packb([99, "of", "another", "form"]))
    with pytest.raises(HandshakeError, match="version 99 met version 2"):
        Handshake(SLAVE, client=False).receive(hello)


def test_a_refusal_is_cut_to_a_bound() -> None:
    with pytest.raises(HandshakeError) as heard:
        Handshake(MASTER, client=True).receive(Frame(Kind.HELLO, 0, b"refused", b"\xffno" * 300))
    assert len(str(heard.value)) < 600


def test_what_strangers_say_is_one_line_without_control_characters() -> None:
    rude = replace(MASTER, simulation="x", role="\x1b[2J", address="a\r\nWARNING\u202e\x9b31m")
    for client, server in ((rude, SLAVE), (SLAVE, rude)):
        ends = Handshake(client, client=True), Handshake(server, client=False)
        for text in refusal(*ends):
            assert r"\x1b[2J a\r\nWARNING\u202e\x9b31m" in text
            assert text.isprintable()
    refused = Frame(Kind.HELLO, 0, b"refused", b"\x1b]0;title\x07")
    with pytest.raises(HandshakeError) as caught:
        Handshake(MASTER, client=True).receive(refused)
    assert str(caught.value) == r"the peer refused: \x1b]0;title\x07"


def test_blanks_do_not_make_what_strangers_say_look_like_lines_of_its_own() -> None:
    blanks = " " * 80 + "\t\u3000" * 20
    rude = replace(MASTER, simulation="x", role="x" + blanks + "ERROR:", address="type" + blanks)
    for text in refusal(Handshake(rude, client=True), Handshake(SLAVE, client=False)):
        assert "x ERROR: type of simulation 'x' met" in text
    refused = Frame(Kind.HELLO, 0, b"refused", f"no{blanks}ERROR: type".encode())
    with pytest.raises(HandshakeError, match=r"^the peer refused: no ERROR: type$"):
        Handshake(MASTER, client=True).receive(refused)


def test_a_weak_key_or_a_long_name_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Handshake(replace(MASTER, key=b"short"), client=True)
    with pytest.raises(ValueError, match="too long"):
        Handshake(replace(MASTER, simulation="x" * 2000), client=False)


def test_the_peer_is_unknown_until_the_end() -> None:
    end = Handshake(MASTER, client=True)
    with pytest.raises(RuntimeError, match="not complete"):
        _ = end.peer


def test_both_ends_have_the_same_keys_for_records_each_time_others() -> None:
    keys = []
    for _ in range(2):
        client, server = Handshake(MASTER, client=True), Handshake(SLAVE, client=False)
        with pytest.raises(RuntimeError, match="not complete"):
            client.record_keys()
        exchange(client, server)
        ours, theirs = client.record_keys(), server.record_keys()
        assert (ours.sending, ours.receiving) == (theirs.receiving, theirs.sending)
        keys += [*ours]
    assert len(set(keys)) == 4


def test_who_was_not_called_gets_no_proof() -> None:
    client = Handshake(MASTER, client=True, accepts=lambda address: address == "tcp://another:1/")
    server = Handshake(SLAVE, client=False)
    for text in refusal(client, server):
        assert f"{SLAVE.address} answered, which was not called" in text
    assert not server.complete


def test_ends_that_see_different_carriers_refuse_each_other() -> None:
    client = Handshake(MASTER, client=True, binding=b"a certificate")
    server = Handshake(SLAVE, client=False, binding=b"a certificate")
    exchange(client, server)
    assert client.complete
    assert client.record_keys().sending == server.record_keys().receiving
    client = Handshake(MASTER, client=True, binding=b"a certificate")
    server = Handshake(SLAVE, client=False, binding=b"a relay's")
    assert "a wrong key" in refusal(client, server)[0]
