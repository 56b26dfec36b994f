"""The wire protocol, without any I/O.

protocol        one end of a connection: calls, answers, cancellation, events
limits          which of a peer's calls are served, and when
frames          frames to bytes and back
handshake       the proof that both ends belong together, before the first call
codec           values to payloads and back, on top of
    packing       msgpack with extensions, one value at a time
    extensions    the standard library's types
    numpy_values  arrays and scalars
    columns       long lists and dicts of similar items
    encode_errors which piece of a value cannot be encoded
"""
