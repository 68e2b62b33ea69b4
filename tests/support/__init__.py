"""What the tests share: content, servers, faults."""
