"""A stub of vLLM for fault injection: it speaks the server's and the bench's protocol and computes nothing."""
