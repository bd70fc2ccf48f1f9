"""A corpus of hostile requests and responses, and a judge that sends them through the proxy over real sockets."""
