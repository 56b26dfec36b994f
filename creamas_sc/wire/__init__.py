"""The data plane: values to bytes, bytes to frames, frames over a connection."""
